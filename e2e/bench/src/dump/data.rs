//! What is dumped.

use pgrail_testing::{Client, Database, Server};

use crate::Result;

/// Tables with equal shares of the rows: one would leave nothing to divide between two pg_dump.
const TABLES: usize = 4;
/// Bytes of a row in a table, and a little less in an archive before it is compressed.
const ROW: u64 = 256;
/// The table that is restored alone, in MB.
const WANTED: u64 = 20;
/// Tables of the database whose structure is drilled.
pub(super) const MANY: usize = 1000;

/// The name of the table that is restored alone.
pub(super) const WANTED_TABLE: &str = "wanted";

/// A database whose tables have so many MB.
pub(super) async fn large(server: &Server, megabytes: u64) -> Result<Database> {
    let database = server.database("bench_dump").await;
    let client = database.connect().await;
    client.batch_execute("SET synchronous_commit = off").await?;
    let mut tables: Vec<String> = (1..=TABLES).map(|number| format!("events_{number}")).collect();
    for table in &tables {
        fill(&client, table, megabytes * 1_000_000 / ROW / TABLES as u64).await?;
    }
    fill(&client, WANTED_TABLE, WANTED * 1_000_000 / ROW).await?;
    tables.push(WANTED_TABLE.to_owned());
    // Hint bits are set now, not by the first that reads.
    client.batch_execute(&format!("VACUUM ANALYZE {}", tables.join(", "))).await?;
    client.batch_execute("CHECKPOINT").await?;
    Ok(database)
}

/// Words, numbers and times, with a hash in each row: an archive is about a third of it.
async fn fill(client: &Client, table: &str, rows: u64) -> Result<()> {
    let sql = format!(
        "CREATE TABLE {table} (id bigint, account int, at timestamptz, kind text, amount numeric(12, 2), token text, note text) WITH (autovacuum_enabled = off);
         INSERT INTO {table} SELECT i, hashint8(i) % 100000, '2026-01-01'::timestamptz + i * interval '1.7 s',
           (ARRAY['created', 'paid', 'shipped', 'returned', 'cancelled'])[i % 5 + 1], (hashint8(i * 7) % 1000000) / 100.0, md5(i::text),
           (SELECT string_agg((ARRAY['order', 'of', 'customer', 'with', 'delivery', 'address', 'unknown', 'please', 'call', 'before',
             'noon', 'invoice', 'sent', 'again', 'parcel', 'damaged'])[(hashint8(i * 31 + n) & 15) + 1], ' ') FROM generate_series(1, 17) n)
           FROM generate_series(1, {rows}) i;
         ALTER TABLE {table} ADD PRIMARY KEY (id); CREATE INDEX ON {table} (account)"
    );
    Ok(client.batch_execute(&sql).await?)
}

/// A database with many small tables, each with a primary key, an index and a reference to the one before.
pub(super) async fn many_tables(server: &Server) -> Result<Database> {
    let database = server.database("bench_structure").await;
    let sql = format!(
        "DO $$ BEGIN FOR i IN 1..{MANY} LOOP
           EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, r int REFERENCES t%s, name text)', i, greatest(i - 1, 1));
           EXECUTE format('CREATE INDEX ON t%s (r); INSERT INTO t%s VALUES (1, 1, ''one'')', i, i);
         END LOOP; END $$; ANALYZE; CHECKPOINT"
    );
    database.connect().await.batch_execute(&sql).await?;
    Ok(database)
}
