-- A database of the first schema, with something in every table, as a controller of that version left it. Both databases
-- take it. It is what migration is tested from, and never altered.
CREATE TABLE schema_version (version BIGINT PRIMARY KEY);
INSERT INTO schema_version (version) VALUES (1);
CREATE TABLE hosts (
    name TEXT PRIMARY KEY, labels TEXT NOT NULL, zone TEXT, cell TEXT, serial TEXT NOT NULL,
    previous_serial TEXT, key TEXT NOT NULL, enrolled_at BIGINT NOT NULL, revoked_at BIGINT
);
CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, made_by TEXT NOT NULL, made_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL, uses_left BIGINT NOT NULL, revoked_at BIGINT
);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL, role TEXT NOT NULL,
    made_by TEXT NOT NULL, made_at BIGINT NOT NULL, expires_at BIGINT, revoked_at BIGINT
);
CREATE TABLE runs (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, document TEXT NOT NULL, plan TEXT NOT NULL, made_by TEXT NOT NULL,
    made_at BIGINT NOT NULL, state TEXT NOT NULL, epoch BIGINT NOT NULL, events BIGINT NOT NULL
);
CREATE INDEX runs_by_time ON runs (made_at, id);
CREATE TABLE events (
    run TEXT NOT NULL REFERENCES runs (id), seq BIGINT NOT NULL, event TEXT NOT NULL, PRIMARY KEY (run, seq)
);
CREATE TABLE audit (
    seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, prev TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE audit_head (one BIGINT PRIMARY KEY, seq BIGINT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE answers (
    who TEXT NOT NULL, key TEXT NOT NULL, asked TEXT NOT NULL, at BIGINT NOT NULL, status BIGINT, body TEXT,
    PRIMARY KEY (who, key)
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);

INSERT INTO join_tokens VALUES ('j1', 'hash of j1', 'ada (1f)', 1763800000000, 4102444800000, 1, NULL);
INSERT INTO hosts VALUES ('web-1', '{"role":"web"}', 'a', NULL, 's2', 's1', 'k1', 1763800001000, NULL);
INSERT INTO hosts VALUES ('old-1', '{}', NULL, 'x', 's3', NULL, 'k2', 1763800001500, 1763800009000);
INSERT INTO tokens VALUES ('1f', 'hash of 1f', 'ada', 'admin', 'the first start', 1763799999000, NULL, NULL);
INSERT INTO tokens VALUES ('2e', 'hash of 2e', 'bob', 'viewer', 'ada (1f)', 1763800000000, 1763800000001, NULL);
INSERT INTO runs VALUES ('r1', 'It''s "odd" ü', 'squall: 1', 'ab', 'ada (1f)', 1763800002000, 'held', 0, 2);
INSERT INTO runs VALUES ('r2', 'Cut off', 'squall: 1', 'cd', 'ada (1f)', 1763800003000, 'running', 1, 1);
INSERT INTO events VALUES ('r1', 0, '{"first":1}');
INSERT INTO events VALUES ('r1', 1, '{"last":"ü"}');
INSERT INTO events VALUES ('r2', 0, '{"first":2}');
INSERT INTO answers VALUES ('ada (1f)', 'k', 'digest', 1763800002000, 201, '{"id":"r1"}');
INSERT INTO facts VALUES ('halt', '{"reason":"the drill is over"}');
INSERT INTO audit VALUES (1, 1763800000000, 'ada (1f)', '{"body":"00","did":"POST /v1/join-tokens"}', '0000000000000000000000000000000000000000000000000000000000000000',
    '5ee8ab7bf79c1ac9d52d085e286954e08a4648dea4f5efd18105cd61f6e265a9');
INSERT INTO audit VALUES (2, 1763800001000, 'host web-1', '{"host-joined":{"host":"web-1"}}', '5ee8ab7bf79c1ac9d52d085e286954e08a4648dea4f5efd18105cd61f6e265a9',
    '19669ec638f7a34baa52fdbb715e1b49a9f1ea864f036fc9357a9dca6109cabe');
INSERT INTO audit VALUES (3, 1763800002000, 'ada (1f)', '{"body":"it''s ü","did":"POST /v1/runs"}', '19669ec638f7a34baa52fdbb715e1b49a9f1ea864f036fc9357a9dca6109cabe',
    '027c4ae274dc67ba25a1f09dd22201c16c1e0136a181803283eb9afd2c6bde5c');
INSERT INTO audit_head VALUES (1, 3, '027c4ae274dc67ba25a1f09dd22201c16c1e0136a181803283eb9afd2c6bde5c');
