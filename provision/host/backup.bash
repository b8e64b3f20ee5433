# shellcheck shell=bash disable=SC2154
# The role of a backup host: pgBackRest's repository, which database hosts use over TLS. Sourced by setup, whose variables
# it uses.

setup_backup() {
    local text cipher

    firewall 'ip saddr @databases tcp dport 8432 accept'

    put /etc/ngx_pgq/postgres.crt 644 root < "$kit/secrets/host.crt"
    put /etc/ngx_pgq/postgres.key 600 postgres:postgres < "$kit/secrets/host.key"

    cipher=$(secret repository)
    text=$(fill "$kit/patroni/repository.conf.in" NAME="$name" ADDRESS="$address" \
        CIPHER="$cipher" CLIENTS="$(each $'\n' 'tls-server-auth=%=ngx_pgq' "${database_names[@]}")")
    put /etc/pgbackrest.conf 600 postgres:postgres <<< "$text"
    [[ -n $root ]] || install -d -o postgres -g postgres -m 750 /var/lib/pgbackrest

    service pgbackrest.service restart /etc/pgbackrest.conf /etc/ngx_pgq/ca.crt /etc/ngx_pgq/postgres.crt
}
