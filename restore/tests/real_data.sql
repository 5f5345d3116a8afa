-- What databases in use contain. {owner}, {reader} are roles, {file} is a file that the server can read.
CREATE SCHEMA "Ext ""ra"""; CREATE SCHEMA app AUTHORIZATION {owner}; CREATE SCHEMA "Größe
\ 'zwei' ""drei"""; CREATE SCHEMA empty_schema;
CREATE EXTENSION hstore SCHEMA "Ext ""ra"""; CREATE EXTENSION pg_trgm; CREATE EXTENSION citext; CREATE EXTENSION btree_gist;
CREATE EXTENSION pgcrypto; CREATE EXTENSION ltree; CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw;
COMMENT ON EXTENSION citext IS 'changed ''comment''';

-- Types.
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'größer
\ ', ''); ALTER TYPE mood ADD VALUE 'between' BEFORE 'sad';
CREATE DOMAIN positive AS int NOT NULL DEFAULT 1 CONSTRAINT "more than zero" CHECK (VALUE > 0);
CREATE DOMAIN very_positive AS positive CHECK (VALUE > 10);
CREATE TYPE pair AS (a int, "B b" text COLLATE "C");
CREATE TYPE nested AS (pairs pair[], mood mood, at tstzrange);
CREATE FUNCTION float_diff(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE sql AS 'SELECT $1 - $2';
CREATE TYPE float_range AS RANGE (subtype = float8, subtype_diff = float_diff, multirange_type_name = float_ranges);
CREATE DOMAIN pairs AS pair CHECK ((VALUE).a IS DISTINCT FROM 0);
CREATE COLLATION "ignore case" (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION german (provider = icu, locale = 'de-DE'); CREATE COLLATION plain FROM "C";
CREATE TEXT SEARCH DICTIONARY simple_one (TEMPLATE = simple, accept = false);
CREATE TEXT SEARCH CONFIGURATION own (COPY = english); ALTER TEXT SEARCH CONFIGURATION own ALTER MAPPING FOR asciiword WITH simple_one, english_stem;
CREATE FUNCTION to_pair(int) RETURNS pair LANGUAGE sql IMMUTABLE AS $$ SELECT ROW($1, 'x')::public.pair $$;
CREATE CAST (int AS pair) WITH FUNCTION to_pair(int) AS ASSIGNMENT;
CREATE FUNCTION same(pair, pair) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT ($1).a = ($2).a';
CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same, COMMUTATOR = ===);
CREATE AGGREGATE longest(text) (sfunc = textcat, stype = text, initcond = 'it''s');
CREATE CONVERSION own_conversion FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;

-- Functions.
CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, email citext, mood mood DEFAULT 'sad',
    twice int GENERATED ALWAYS AS (length(name) * 2) STORED, born date, extra "Ext ""ra""".hstore, path ltree);
CREATE FUNCTION user_count(more int DEFAULT 1, VARIADIC others int[] DEFAULT '{}') RETURNS bigint BEGIN ATOMIC SELECT count(*) + more FROM users; END;
CREATE PROCEDURE rename(INOUT who text) LANGUAGE plpgsql AS $p$ BEGIN who := 'x\y
$body$'; END $p$;
CREATE FUNCTION app."Tabelle ""x"" (int)"("Ä b" int, OUT c text, OUT d int) LANGUAGE plpgsql SECURITY DEFINER COST 7 SET search_path = app, pg_temp AS
    $$ BEGIN c := '\'; d := "Ä b"; END $$;
CREATE FUNCTION one_of_table(users) RETURNS text STABLE LANGUAGE sql RETURN upper($1.name);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$;
CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'ddl %', tg_tag; END $$;

-- Tables.
CREATE TABLE orders (id bigserial PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED,
    note varchar(200) COLLATE "ignore case", total numeric(12, 2) CHECK (total >= 0) NO INHERIT, paid money, n positive, m very_positive DEFAULT 11,
    search tsvector GENERATED ALWAYS AS (to_tsvector('english', coalesce(note, ''))) STORED);
CREATE TABLE "select" ("from" int PRIMARY KEY, "where" text, "user" text DEFAULT 'x''y\z', "Ünïcödé 🐘" text, "a""b" int, "new
line\" int);
CREATE TABLE "Größe
\ 'zwei' ""drei"""."Tab	'le"" \
; COPY x FROM stdin; 💣" ("col 'x' ""y"" \
" int, "	" text);
CREATE TABLE "COPY public.users (id) FROM stdin;" (id int);
CREATE TABLE no_columns (); CREATE TABLE empty (id int PRIMARY KEY, t text); CREATE TABLE dropped (a int, b int, c int); ALTER TABLE dropped DROP b;
CREATE UNLOGGED TABLE cache (id int, v text); CREATE UNLOGGED SEQUENCE cache_seq;
CREATE TABLE rooms (room int, during tstzrange, EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (room > 0) DEFERRABLE);
CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a DEFERRABLE);
ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree, tenant int, UNIQUE NULLS NOT DISTINCT (tenant, id));
CREATE TABLE leaf (tenant int, id int, FOREIGN KEY (tenant, id) REFERENCES tree (tenant, id) MATCH SIMPLE ON DELETE SET NULL (id), k int);
ALTER TABLE leaf ADD FOREIGN KEY (k) REFERENCES tree NOT VALID; ALTER TABLE leaf ADD CONSTRAINT later CHECK (k > 0) NOT VALID;
CREATE TABLE events (at timestamptz NOT NULL, kind text, v int, PRIMARY KEY (at, kind)) PARTITION BY RANGE (at);
CREATE TABLE events_old PARTITION OF events DEFAULT;
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (kind);
CREATE TABLE events_2026_a (v int, extra int, kind text NOT NULL, at timestamptz NOT NULL); ALTER TABLE events_2026_a DROP extra;
ALTER TABLE events_2026 ATTACH PARTITION events_2026_a FOR VALUES IN ('a', 'it''s'); CREATE TABLE events_2026_b PARTITION OF events_2026 (v DEFAULT 7) DEFAULT;
CREATE TABLE hashed (id int, t text) PARTITION BY HASH (id); CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE by_enum (m mood) PARTITION BY HASH (m); CREATE TABLE by_enum_0 PARTITION OF by_enum FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_enum_1 PARTITION OF by_enum FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE parent (id int CHECK (id > 0), t text DEFAULT 'p'); CREATE TABLE parent_2 (id int, u text);
CREATE TABLE child (t text DEFAULT 'c', more int) INHERITS (parent, parent_2); CREATE TABLE grandchild () INHERITS (child);
CREATE TABLE typed OF pair (a PRIMARY KEY);
CREATE TABLE every_type (id serial, f4 real, f8 double precision, num numeric, ts timestamp, tstz timestamptz, d date, t timetz, iv interval, ints int[], texts text[][],
    js json, jsb jsonb, x xml, by bytea, bits bit varying(9), ip inet, net cidr, mac macaddr8, m money, q tsquery, pt point, poly polygon, lsn pg_lsn, xid xid8, uid uuid,
    r int4range, mr nummultirange, fr float_range, c char(5), c1 "char", nam name, reg regclass, typ regtype, p pair, nest nested, nests nested[], dp pairs, vc text); ALTER TABLE every_type ALTER vc SET STORAGE EXTERNAL;
DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' || (SELECT string_agg(format('c%s int2', n), ', ') FROM generate_series(1, 1600) n) || ')'; END $$;
CREATE TABLE large (id int, field text); ALTER TABLE large ALTER field SET STORAGE EXTERNAL;
CREATE TABLE compressed (t text COMPRESSION pglz, u text) WITH (fillfactor = 70, autovacuum_enabled = off, toast.autovacuum_enabled = off); ALTER TABLE compressed ALTER u SET STORAGE MAIN;
CREATE TABLE app.secret (id int, owner text DEFAULT current_user); ALTER TABLE app.secret OWNER TO {owner};
ALTER TABLE app.secret ENABLE ROW LEVEL SECURITY; ALTER TABLE app.secret FORCE ROW LEVEL SECURITY;
CREATE POLICY "mine ""x""" ON app.secret USING (owner = current_user) WITH CHECK (id > 0);
CREATE POLICY narrow ON app.secret AS RESTRICTIVE FOR SELECT TO {reader} USING (EXISTS (SELECT FROM users u WHERE u.id = secret.id));
CREATE SEQUENCE app.down AS smallint INCREMENT -3 MINVALUE -100 MAXVALUE 5 START 5 CYCLE CACHE 2; SELECT nextval('app.down'), nextval('app.down');
CREATE SEQUENCE "odd'
COPY public.users (id) FROM stdin;
"; SELECT setval(E'"odd''\nCOPY public.users (id) FROM stdin;\n"', 9876543210, false);
CREATE TABLE uses_sequence (id int DEFAULT nextval('app.down'));
-- Indexes, statistics, triggers, rules.
CREATE INDEX by_name ON users USING gin (name gin_trgm_ops); CREATE INDEX "Ind ""ex"" \" ON orders (lower(note), total DESC NULLS LAST) INCLUDE (n) WHERE total > 1;
CREATE INDEX ON events (v); CREATE INDEX ON ONLY hashed (t); CREATE INDEX ON users USING brin (born) WITH (pages_per_range = 16); CREATE INDEX ON users USING hash (name);
CREATE UNIQUE INDEX of_identity ON leaf (k); ALTER TABLE leaf ALTER k SET NOT NULL; ALTER TABLE leaf REPLICA IDENTITY USING INDEX of_identity; ALTER TABLE a REPLICA IDENTITY FULL;
ALTER TABLE users CLUSTER ON users_pkey; ALTER TABLE users ALTER name SET STATISTICS 7; ALTER TABLE users ALTER name SET (n_distinct = -0.5);
CREATE STATISTICS app.of_orders (ndistinct, dependencies, mcv) ON user_id, total FROM orders; CREATE STATISTICS of_expression ON (id % 7), lower(note) FROM orders;
ALTER STATISTICS of_expression SET STATISTICS 50;
CREATE TRIGGER audit BEFORE UPDATE OF name, born ON users FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION audit('a', 'it''s \');
CREATE TRIGGER "Dis ""abled" AFTER INSERT ON users REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION audit(); ALTER TABLE users DISABLE TRIGGER "Dis ""abled";
CREATE CONSTRAINT TRIGGER checked AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit(); ALTER TABLE orders ENABLE ALWAYS TRIGGER checked;
CREATE TRIGGER of_partitions AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION audit(); ALTER TABLE events_old ENABLE REPLICA TRIGGER of_partitions;
CREATE RULE twice AS ON UPDATE TO empty DO ALSO NOTIFY changed; CREATE RULE never AS ON DELETE TO tree WHERE old.id = 0 DO INSTEAD NOTHING;
-- Views: on each other, with a primary key that makes a circle, updatable, recursive.
CREATE VIEW visible WITH (security_barrier) AS SELECT id, name, upper(name) AS "UP" FROM users WHERE id > 0 WITH LOCAL CHECK OPTION;
CREATE VIEW "view ""of"" view" AS SELECT v.*, user_count() FROM visible v; CREATE VIEW third WITH (security_invoker) AS TABLE "view ""of"" view";
CREATE VIEW by_key AS SELECT u.id, u.name, count(o.*) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY u.id;
CREATE FUNCTION of_view(by_key) RETURNS int LANGUAGE sql AS 'SELECT ($1).id';
CREATE RECURSIVE VIEW descendants (id, depth) AS SELECT id, 0 FROM tree WHERE parent IS NULL UNION ALL SELECT t.id, depth + 1 FROM tree t JOIN descendants d ON t.parent = d.id;
CREATE VIEW inserted AS SELECT 1 AS one; CREATE RULE ins AS ON INSERT TO inserted DO INSTEAD INSERT INTO empty VALUES (NEW.one); ALTER VIEW inserted ALTER one SET DEFAULT 9;
CREATE TRIGGER instead INSTEAD OF UPDATE ON "view ""of"" view" FOR EACH ROW EXECUTE FUNCTION audit();
-- Foreign tables, publications, a subscription, event triggers.
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE of_file (line text NOT NULL) SERVER files OPTIONS (filename '{file}', delimiter E'\x01');
CREATE SERVER "far ""away" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'x''y');
CREATE USER MAPPING FOR PUBLIC SERVER "far ""away" OPTIONS (user 'nobody', password 'hunter22');
CREATE FOREIGN TABLE far (id int OPTIONS (column_name 'x'), t text COLLATE "C") SERVER "far ""away" OPTIONS (schema_name 's', table_name 't');
CREATE TABLE sharded (id int) PARTITION BY RANGE (id); CREATE TABLE shard_1 PARTITION OF sharded FOR VALUES FROM (0) TO (10);
CREATE FOREIGN TABLE shard_2 PARTITION OF sharded FOR VALUES FROM (10) TO (20) SERVER "far ""away";
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert'); CREATE PUBLICATION few FOR TABLE users (id, name) WHERE (id > 5), TABLE ONLY parent; CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA app, TABLE a;
CREATE PUBLICATION "of ""root" FOR TABLE events WITH (publish_via_partition_root);
-- Privileges.
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app GRANT SELECT, INSERT ON TABLES TO {reader} WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
GRANT USAGE ON SCHEMA app TO {reader}; GRANT SELECT (id, name), UPDATE (name) ON users TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA app TO PUBLIC; REVOKE EXECUTE ON FUNCTION user_count FROM PUBLIC;
GRANT USAGE ON TYPE mood TO {reader}; REVOKE USAGE ON TYPE pair FROM PUBLIC; GRANT USAGE ON FOREIGN SERVER files TO {reader}; GRANT USAGE, UPDATE ON SEQUENCE app.down TO {reader};
ALTER TABLE orders OWNER TO {owner}; ALTER FUNCTION audit OWNER TO {owner}; GRANT SELECT ON orders TO {reader} WITH GRANT OPTION; SET ROLE {reader}; GRANT SELECT ON orders TO PUBLIC; RESET ROLE;
-- Comments.
COMMENT ON TABLE users IS E'it''s "the" \\ users\n;--\n$$ äöü 🐘'; COMMENT ON COLUMN "select"."Ünïcödé 🐘" IS 'x'; COMMENT ON SCHEMA "Größe
\ 'zwei' ""drei""" IS 'odd'; COMMENT ON INDEX by_name IS 'x'; COMMENT ON CONSTRAINT "more than zero" ON DOMAIN positive IS 'x';
COMMENT ON TRIGGER audit ON users IS 'x'; COMMENT ON POLICY narrow ON app.secret IS 'x'; COMMENT ON RULE twice ON empty IS 'x'; COMMENT ON PROCEDURE rename IS 'x'; COMMENT ON VIEW by_key IS 'x';
COMMENT ON STATISTICS of_expression IS 'x'; COMMENT ON PUBLICATION few IS 'x'; COMMENT ON OPERATOR === (pair, pair) IS 'x'; COMMENT ON TYPE nested IS 'x'; COMMENT ON COLLATION german IS 'x';

-- Rows.
INSERT INTO users (name, email, born, extra, path) SELECT E'u\t\\' || n, 'U' || n || '@X', date '2000-01-01' + n, "Ext ""ra""".hstore('k"' || n, NULL), ('a.b' || n)::ltree FROM generate_series(1, 500) n;
UPDATE users SET mood = E'größer\n\\ ' WHERE id % 3 = 0; UPDATE users SET mood = NULL, email = NULL WHERE id % 7 = 0; UPDATE users SET mood = '' WHERE id % 5 = 0; DELETE FROM users WHERE id % 11 = 0;
INSERT INTO orders (user_id, note, total, paid, n) SELECT u.id, 'n' || i || E'\r\n\\.\\N', i, i::numeric::money, i FROM users u, generate_series(1, 3) i;
INSERT INTO "select" VALUES (1, E'\\.', NULL, '🐘', 1, 2), (2, '', E'\u00e4\u0301', E'\x01\x7f', NULL, NULL), (3, E'\\N', E'a\vb\fc\bd', NULL, NULL, NULL), (4, 'COPY x FROM stdin;', E'\n\\.\n', NULL, NULL, NULL);
INSERT INTO "Größe
\ 'zwei' ""drei"""."Tab	'le"" \
; COPY x FROM stdin; 💣" VALUES (1, 'x'), (2, NULL);
INSERT INTO no_columns SELECT FROM generate_series(1, 5); INSERT INTO dropped VALUES (1, 3); INSERT INTO cache VALUES (1, 'x'); SELECT nextval('cache_seq');
INSERT INTO rooms VALUES (1, '[2026-01-01,2026-01-02)'), (1, '[2026-01-02,infinity)'), (0, 'empty'), (0, NULL);
BEGIN; INSERT INTO a VALUES (1, 1), (2, 1); INSERT INTO b VALUES (1, 2), (2, NULL); COMMIT;
INSERT INTO tree SELECT n, nullif(n / 2, 0), n % 3 FROM generate_series(1, 100) n; INSERT INTO leaf VALUES (1, 1, 1), (NULL, NULL, 2);
INSERT INTO events SELECT timestamptz '2025-12-01 00:00+00' + n * interval '1 day', (ARRAY['a', 'it''s', 'z'])[n % 3 + 1], n FROM generate_series(1, 500) n; INSERT INTO events VALUES ('-infinity', 'a'), ('0044-03-15 12:00 BC', 'b');
INSERT INTO hashed SELECT n, 'h' FROM generate_series(1, 100) n; INSERT INTO by_enum SELECT unnest(enum_range(NULL::mood)); INSERT INTO shard_1 VALUES (1);
INSERT INTO parent VALUES (1); INSERT INTO parent_2 VALUES (-1, 'u'); INSERT INTO child VALUES (2, DEFAULT, 'u', 1); INSERT INTO grandchild VALUES (3, 'g', 'u', 2); INSERT INTO typed VALUES (1, 'x');
INSERT INTO every_type (f4, f8, num, ts, tstz, d, t, iv, ints, texts, js, jsb, x, by, bits, ip, net, mac, m, q, pt, poly, lsn, xid, uid, r, mr, fr, c, c1, nam, reg, typ, p, nest, nests, dp, vc) VALUES
    ('NaN', '-0', 'NaN', 'infinity', '-infinity', '4713-01-01 BC', '24:00:00-15:59', '-1 year 2 mons -3 days 04:05:06.789', '[-2:0]={1,NULL,3}', '{{a,"b,\"c\\"},{NULL,""}}', '{"a" :  1, "a":2}', '{"ä": [null, 1e400, "\u0001"]}', '<a>&amp;</a>', '\x00ff5c0a0d09', B'0101',
     '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03:04:05', '-92233720368547758.08', 'a & !(b <-> c:*)', '(1e-300,Infinity)', '((0,0),(1,1),(NaN,2))', 'FFFFFFFF/FFFFFFFF', '18446744073709551615', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
     'empty', '{[1,2),(3,)}', '[0.1,0.30000000000000004)', 'x', '"', 'name', '"Größe
\ ''zwei'' ""drei"""."Tab	''le"" \
; COPY x FROM stdin; 💣"', 'mood[]', '(1,"x,""y\\")', '("{""(1,\\""a b\\"")""}","it''s ""ok""",empty)', ARRAY['(,,)'::nested, NULL], '(7,)', repeat('ü', 5000)),
    ('-Infinity', 1e-310, '-Infinity', '294276-12-31 23:59:59.999999', '4714-11-24 00:00:00+00 BC', 'infinity', '00:00+15:59', '178000000 years', '{}', '{}', 'null', '"\\"', '', '', '', '0.0.0.0/0', '::/0', '00:00:00:ff:fe:00:00:00', '0', '', NULL, NULL, '0/0', '0', NULL,
     '(,)', '{}', '(,)', '', '', '', 'users', 'positive', '(,)', NULL, '{}', NULL, ''),
    (1.1::real, 0.1::float8 + 0.2, 1e-1000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
DO $$ BEGIN EXECUTE 'INSERT INTO wide SELECT ' || (SELECT string_agg(CASE n % 5 WHEN 0 THEN 'NULL' ELSE n::text END, ', ') FROM generate_series(1, 1600) n) || ' FROM generate_series(1, 3)'; END $$;
INSERT INTO large VALUES (1, repeat(E'0123456789\\\tabc\n', 6990506)), (2, NULL), (3, repeat('x', 3000000));
INSERT INTO compressed SELECT repeat(md5(n::text), 500), repeat('y', 1000) FROM generate_series(1, 20) n; INSERT INTO app.secret SELECT n, 'somebody' FROM generate_series(1, 9) n;
CREATE MATERIALIZED VIEW report AS SELECT mood, count(*) FROM users GROUP BY mood; CREATE UNIQUE INDEX ON report (mood); CREATE MATERIALIZED VIEW of_report AS SELECT sum(count) FROM report WITH NO DATA;
CREATE MATERIALIZED VIEW second_report AS SELECT max(count) FROM report;
SELECT lo_from_bytea(4000000001, decode(repeat('00ff27', 100000), 'hex')), lo_from_bytea(4000000002, ''), lo_put(lo_create(4000000003), 1000000, 'sparse');
COMMENT ON LARGE OBJECT 4000000001 IS 'it''s'; ALTER LARGE OBJECT 4000000002 OWNER TO {owner}; GRANT SELECT ON LARGE OBJECT 4000000001 TO {reader};
