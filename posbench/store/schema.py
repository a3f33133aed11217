"""SQL of a store: its tables, the migrations of older ones, and the statements that merge two stores."""

SCHEMA_VERSION = 3
APPLICATION_ID = 0x706F7362  # "posb"
_MEASURES = """CREATE TABLE measures (
    job_id TEXT NOT NULL,            -- SHA-256 of identity
    metric TEXT NOT NULL,
    version TEXT NOT NULL,
    tap TEXT NOT NULL,               -- 'all', or the number of a tap from 1
    run_id INTEGER NOT NULL REFERENCES runs,
    identity TEXT NOT NULL,          -- of the job, canonical JSON
    status TEXT NOT NULL CHECK (status IN ('ok', 'skipped', 'failed')),
    reason TEXT NOT NULL,
    value REAL,
    lo REAL,
    hi REAL,
    by_photograph TEXT NOT NULL,     -- JSON: the value of each photograph
    picture BLOB,                    -- float32, little-endian, row by row
    columns INTEGER,                 -- of the picture
    created TEXT NOT NULL,
    posbench_version TEXT NOT NULL,
    PRIMARY KEY (job_id, metric, version, tap)
) STRICT, WITHOUT ROWID"""
_THUMBNAILS = """CREATE TABLE thumbnails (
    digest TEXT PRIMARY KEY,         -- SHA-256 of rgb
    rgb BLOB NOT NULL                -- uint8, red, green, blue, a square picture row by row
) STRICT, WITHOUT ROWID"""
_EXAMPLES = """CREATE TABLE examples (
    cell_id TEXT NOT NULL REFERENCES cells ON DELETE CASCADE,
    place INTEGER NOT NULL,          -- among the examples of the cell, from 0
    photograph TEXT NOT NULL,
    thumbnail TEXT NOT NULL REFERENCES thumbnails,
    drawn BLOB NOT NULL,             -- float16, little-endian, a square map row by row
    PRIMARY KEY (cell_id, place)
) STRICT"""
SCHEMA = (
    """CREATE TABLE runs (
    run_id INTEGER PRIMARY KEY,      -- one each time that a job is computed
    job_id TEXT NOT NULL,
    provenance TEXT NOT NULL,        -- JSON: versions, machine, photographs, seconds by stage
    created TEXT NOT NULL            -- UTC, ISO 8601
) STRICT""",
    """CREATE TABLE cells (
    cell_id TEXT PRIMARY KEY,        -- SHA-256 of identity
    run_id INTEGER NOT NULL REFERENCES runs,
    identity TEXT NOT NULL,          -- canonical JSON
    status TEXT NOT NULL CHECK (status IN ('ok', 'skipped', 'failed')),
    reason TEXT NOT NULL,
    n_test_photos INTEGER,
    degenerate REAL,
    seconds REAL NOT NULL,
    mean_map BLOB,                   -- float32, little-endian, a square map row by row
    created TEXT NOT NULL,
    posbench_version TEXT NOT NULL,
    reach REAL                       -- of the border, in pixels
) STRICT""",
    """CREATE TABLE scores (
    cell_id TEXT NOT NULL REFERENCES cells ON DELETE CASCADE,
    metric TEXT NOT NULL,
    version TEXT NOT NULL,
    value REAL NOT NULL,
    lo REAL,
    hi REAL,
    by_photograph TEXT NOT NULL,     -- JSON: the mean of each photograph
    PRIMARY KEY (cell_id, metric, version)
) STRICT, WITHOUT ROWID""",
    _MEASURES,
    _THUMBNAILS,
    _EXAMPLES,
)
#: The statements that migrate an older store to the next version, by the version that it has.
MIGRATIONS = {1: ("ALTER TABLE cells ADD COLUMN reach REAL", _MEASURES), 2: (_THUMBNAILS, _EXAMPLES)}
#: Each result that differs between two stores, in words. A value that only one has (a reach, a map) is no conflict.
CONFLICTS = """WITH pairs AS (SELECT substr(cell_id, 1, 12) AS id, ours.*, theirs.status AS their_status,
        theirs.reach AS their_reach, theirs.degenerate AS their_degenerate,
        map_distance(ours.mean_map, theirs.mean_map) AS distance
    FROM cells AS ours JOIN other.cells AS theirs USING (cell_id))
SELECT printf('cell %s is %s there and %s here', id, their_status, status) FROM pairs
WHERE status != their_status AND 'failed' NOT IN (status, their_status)
UNION ALL
SELECT printf('%s of cell %.12s is %.6g there and %.6g here', metric, cell_id, theirs.value, ours.value)
FROM scores AS ours JOIN other.scores AS theirs USING (cell_id, metric, version)
WHERE abs(ours.value - theirs.value) > :tolerance
UNION ALL
SELECT printf('the reach of cell %s is %.6g there and %.6g here', id, their_reach, reach) FROM pairs
WHERE abs(reach - their_reach) > :tolerance * max(1, reach)
UNION ALL
SELECT printf('the share of degenerate maps of cell %s is %.6g there and %.6g here', id, their_degenerate, degenerate)
FROM pairs WHERE abs(degenerate - their_degenerate) > :tolerance
UNION ALL
SELECT printf('the mean map of cell %s differs by %.6g', id, distance) FROM pairs WHERE distance > :tolerance
UNION ALL
SELECT printf('%s of job %.12s is %s there and %s here', metric, job_id, theirs.status, ours.status)
FROM measures AS ours JOIN other.measures AS theirs USING (job_id, metric, version)
WHERE ours.status != theirs.status AND 'failed' NOT IN (ours.status, theirs.status)
UNION ALL
SELECT printf('%s of job %.12s, tap %s is %.6g there and %.6g here', metric, job_id, tap, theirs.value, ours.value)
FROM measures AS ours JOIN other.measures AS theirs USING (job_id, metric, version, tap)
WHERE abs(ours.value - theirs.value) > :tolerance * max(1, abs(ours.value))"""
#: The number of cells that both hold, and of those that failed in one of them alone.
COUNT_SHARED = """SELECT count(*), coalesce(sum((ours.status = 'failed') != (theirs.status = 'failed')), 0)
FROM cells AS ours JOIN other.cells AS theirs USING (cell_id)"""
#: Runs are numbered on; then results replace failures, and then all that is missing here is added.
MERGE = (
    "CREATE TEMP TABLE shift AS SELECT coalesce(max(run_id), 0) AS runs FROM main.runs",
    "INSERT INTO main.runs SELECT run_id + runs, job_id, provenance, created FROM other.runs, shift",
    """DELETE FROM main.cells
WHERE status = 'failed' AND cell_id IN (SELECT cell_id FROM other.cells WHERE status != 'failed')""",
    """INSERT OR IGNORE INTO main.cells
SELECT cell_id, run_id + runs, identity, status, reason, n_test_photos, degenerate, seconds, mean_map, created,
       posbench_version, reach
FROM other.cells, shift ORDER BY other.cells.rowid""",
    # A published folder has no maps, and an older store no reach.
    """UPDATE main.cells SET mean_map = coalesce(cells.mean_map, theirs.mean_map),
    reach = coalesce(cells.reach, theirs.reach), degenerate = coalesce(cells.degenerate, theirs.degenerate)
FROM other.cells AS theirs WHERE cells.cell_id = theirs.cell_id AND theirs.status = 'ok'
    AND (cells.mean_map IS NULL OR cells.reach IS NULL OR cells.degenerate IS NULL)""",
    "INSERT OR IGNORE INTO main.scores SELECT * FROM other.scores",
    "INSERT OR IGNORE INTO main.thumbnails SELECT * FROM other.thumbnails",
    "INSERT OR IGNORE INTO main.examples SELECT * FROM other.examples",
    """DELETE FROM main.measures WHERE status = 'failed' AND (job_id, metric, version) IN
    (SELECT job_id, metric, version FROM other.measures WHERE status != 'failed')""",
    """INSERT OR IGNORE INTO main.measures
SELECT job_id, metric, version, tap, run_id + runs, identity, status, reason, value, lo, hi, by_photograph, picture,
       columns, created, posbench_version
FROM other.measures AS theirs, shift
WHERE status = 'ok' OR NOT EXISTS (
    SELECT 1 FROM main.measures AS ours
    WHERE (ours.job_id, ours.metric, ours.version) = (theirs.job_id, theirs.metric, theirs.version)
)""",
    "DROP TABLE shift",
)
