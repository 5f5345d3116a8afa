# The temporary PostgreSQL of a drill in an image of the user: it waits for the file that starts it, and listens on a socket only.
# Why it does not run is left in a file for the container that waits for it.
while [ ! -e /drill/start ]; do sleep 1; done
rm -rf /scratch/data
initdb --no-sync --auth=trust --encoding=UTF8 --locale=C --username postgres --pgdata /scratch/data >/tmp/log 2>&1 ||
    { tail -c 400 /tmp/log >/drill/problem; exit 1; }
postgres -D /scratch/data --unix_socket_directories=/drill --listen_addresses= --unix_socket_permissions=0777 \
    --fsync=off --full_page_writes=off --synchronous_commit=off --wal_level=minimal --max_wal_senders=0 \
    --max_logical_replication_workers=0 --autovacuum=off --jit=off --max_connections=20 --shared_buffers=32MB \
    --lc_messages=C --log_min_messages=fatal --log_min_error_statement=panic >/tmp/log 2>&1 &
trap 'kill -QUIT $!; exit 0' TERM INT
wait $!
tail -c 400 /tmp/log >/drill/problem
exit 1
