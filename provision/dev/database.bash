# shellcheck shell=bash
# Which database `make run` and the targets that talk to it mean, as libpq's environment. Sourced, never run.
#
# A database is named when DB_HOST or libpq's PGHOST, PGHOSTADDR or PGSERVICE is set: then that one is used and
# nothing is started. Otherwise it is the private cluster under run/postgres, and no PG* variable of the caller counts.

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


# Sets libpq's environment to the private cluster, whatever it was.
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


# Sets libpq's environment to the database that is meant.
database_use() {
    if ! database_named; then
        database_use_private
    elif [[ -z ${PGSERVICE:-} && -z ${PGDATABASE:-} ]]; then
        export PGDATABASE=posts
    fi
}
