# shellcheck shell=bash
# Sets libpq's environment to the database of `make run` and of the targets that use it. Sourced, never run.
#
# A database is named when DB_HOST or libpq's PGHOST, PGHOSTADDR or PGSERVICE is set: then that one is used and
# no PostgreSQL is started. Otherwise it is the private cluster under run/postgres, and the caller's PG* variables are ignored.

. "$(dirname "${BASH_SOURCE[0]}")/../common.bash"

postgres_run=$top/run/postgres


[[ -z ${DB_HOST:-} ]] || export PGHOST=$DB_HOST
[[ -z ${DB_PORT:-} ]] || export PGPORT=$DB_PORT
[[ -z ${DB_NAME:-} ]] || export PGDATABASE=$DB_NAME
[[ -z ${DB_USER:-} ]] || export PGUSER=$DB_USER
[[ -z ${DB_PASSWORD:-} ]] || export PGPASSWORD=$DB_PASSWORD


database_named() { [[ -n ${PGHOST:-}${PGHOSTADDR:-}${PGSERVICE:-} ]]; }


# The names of the variables of libpq's environment that are set.
database_variables() { compgen -e PG | grep -vx PGVERSION || true; }


# Sets libpq's environment to the private cluster.
database_use_private() {
    local name

    [[ -r $postgres_run/port ]] || die "there is no database yet: make run"

    for name in $(database_variables); do
        unset "$name"
    done

    PGHOST=$(cd "$postgres_run/socket" && pwd -P)/s
    PGPORT=$(< "$postgres_run/port")
    export PGHOST PGPORT PGUSER=postgres PGDATABASE=posts
}


# Sets libpq's environment to the named database, else to the private cluster.
database_use() {
    if ! database_named; then
        database_use_private
    elif [[ -z ${PGSERVICE:-} && -z ${PGDATABASE:-} ]]; then
        export PGDATABASE=posts
    fi
}
