#!/bin/sh
# Behaves as the entrypoints of the official images do, as far as the tests need it.
set -e
newest=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
PATH="$newest:/usr/sbin:$PATH"
humbly() {
  exec setpriv --reuid postgres --regid postgres --clear-groups "$@"
}
case $1 in
  postgres)
    data=/var/lib/postgresql/data
    if [ ! -d "$data" ]; then
      install -d -m 0700 -o postgres "$data"
      (humbly initdb -D "$data" -U postgres -A "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" -E UTF8 --locale=C.UTF-8)
      echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$data/pg_hba.conf"
    fi
    shift
    humbly postgres -D "$data" -c listen_addresses='*' "$@"
    ;;
  pgbouncer)
    printf '"%s" "%s"\n' "$DB_USER" "$DB_PASSWORD" >/tmp/users
    cat >/tmp/ini <<INI
[databases]
* = host=$DB_HOST port=$DB_PORT
[pgbouncer]
listen_addr=${LISTEN_ADDR:-*}
listen_port=$LISTEN_PORT
unix_socket_dir=
auth_type=$AUTH_TYPE
auth_file=/tmp/users
pool_mode=$POOL_MODE
max_client_conn=$MAX_CLIENT_CONN
ignore_startup_parameters=extra_float_digits
INI
    humbly pgbouncer /tmp/ini
    ;;
  *)
    exec "$@"
    ;;
esac
