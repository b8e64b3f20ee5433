# shellcheck shell=bash disable=SC2154
# The role of a database host: etcd, and Patroni, which starts PostgreSQL. Sourced by setup, whose variables it uses.

setup_database() {
    local file

    firewall \
        'ip saddr @databases tcp dport { 2379, 2380, 5432, 8008 } accept' \
        'ip saddr @monitors tcp dport { 2381, 8008 } accept' \
        'ip saddr @webs tcp dport { 5432, 8008 } accept'

    put /etc/ngx_pgq/postgres.crt 644 root < "$kit/secrets/host.crt"
    put /etc/ngx_pgq/postgres.key 600 postgres:postgres < "$kit/secrets/host.key"
    put /etc/ngx_pgq/etcd-ca.crt 644 root < "$kit/secrets/etcd-ca.crt"
    for file in etcd:etcd etcd-client:postgres; do
        put "/etc/ngx_pgq/${file%:*}.crt" 644 root < "$kit/secrets/etcd.crt"
        put "/etc/ngx_pgq/${file%:*}.key" 600 "${file#*:}:${file#*:}" < "$kit/secrets/etcd.key"
    done
    put /etc/ngx_pgq/passwords 600 postgres:postgres < "$kit/secrets/passwords"

    scripts
    etcd
    archive
    patroni
}


# Writes the scripts that Patroni and operators call.
scripts() {
    local file

    put /usr/local/lib/ngx_pgq/post_bootstrap 755 root < "$kit/patroni/post_bootstrap"
    for file in pg_rewind state has_everything force_failover; do
        put "/usr/local/lib/ngx_pgq/$file" 755 root < "$kit/patroni/$file"
    done
    printf '%s\n' "${database_names[@]}" | put /etc/ngx_pgq/databases 644 root
}


etcd() {
    local state=new member text tool cluster

    cluster=$(each , '%=https://%:2380' "${database_names[@]}")
    for tool in etcdctl etcd_alone etcd_aside; do
        put "/usr/local/lib/ngx_pgq/$tool" 755 root < "$kit/patroni/$tool"
    done

    if [[ -z $root ]] && ! etcd_initialised; then
        # A host without data does not begin a cluster if the others know its name: it joins them.
        if member=$(etcd_member); then
            state=existing
            etcd_keep_aside
            [[ -z $member ]] || etcd_peers member remove "$member" > /dev/null
            etcd_join
            cluster=$(etcd_cluster)
        elif etcd_in_use; then
            die "a cluster exists, but its etcd has no quorum: see docs/runbook.md"
        fi
    elif [[ -s $root/etc/default/etcd ]]; then
        # etcd reads the list only in a new cluster: later changes of it are no reason to restart.
        state=$(sed -n 's/^ETCD_INITIAL_CLUSTER_STATE=//p' "$root/etc/default/etcd")
        cluster=$(sed -n 's/^ETCD_INITIAL_CLUSTER=//p' "$root/etc/default/etcd")
    fi

    text=$(fill "$kit/patroni/etcd.in" NAME="$name" ADDRESS="$address" STATE="${state:-new}" HEARTBEAT=$((250 * NGX_PGQ_PATIENCE)) \
        ELECTION=$((2500 * NGX_PGQ_PATIENCE)) CLUSTER="$cluster")
    put /etc/default/etcd 644 root <<< "$text"
    put /etc/systemd/system/etcd.service.d/ngx_pgq.conf 644 root < "$kit/patroni/etcd.service.conf"
    [[ -n $root ]] || systemctl daemon-reload
    # No restart for a new etcd.crt: etcd reads it for each connection.
    service etcd.service restart /etc/default/etcd /etc/ngx_pgq/etcd-ca.crt
    [[ $state != existing || -n $root ]] || etcd_promote

    put /etc/systemd/system/ngx_pgq_etcd_aside.service 644 root < "$kit/patroni/etcd_aside.service"
    put /etc/systemd/system/ngx_pgq_etcd_aside.timer 644 root < "$kit/patroni/etcd_aside.timer"
    service ngx_pgq_etcd_aside.timer restart /etc/systemd/system/ngx_pgq_etcd_aside.timer
}


# Whether this host's etcd is a member with its data. The directory alone proves nothing: an etcd that has lost its data
# makes one before it fails to start. A member with its data answers while the others have a quorum; without a quorum no
# member answers, and the data is kept.
etcd_initialised() {
    local deadline=$((SECONDS + 20 * NGX_PGQ_PATIENCE))

    compgen -G '/var/lib/etcd/ngx_pgq/member/wal/*.wal' > /dev/null || return 1
    etcd_member > /dev/null || return 0

    systemctl start --no-block etcd.service
    until /usr/local/lib/ngx_pgq/etcdctl endpoint health > /dev/null 2>&1; do
        [[ $SECONDS -lt $deadline ]] || return 1
        sleep 1
    done
}


# Moves the old data aside: this host's etcd becomes a new member.
etcd_keep_aside() {
    local data=/var/lib/etcd/ngx_pgq

    [[ -d $data ]] || return 0
    say "etcd does not start with its data, and the others have a quorum: it becomes a new member"
    systemctl stop etcd.service
    mv "$data" "$data.$(date -u +%Y%m%dT%H%M%SZ)"
}


# Adds this host as a new member. The others accept one at a time, and only when they have been connected for some seconds.
etcd_join() {
    local deadline=$((SECONDS + 30 * NGX_PGQ_PATIENCE)) said

    until said=$(etcd_peers member add "$name" --learner --peer-urls="https://$name:2380" 2>&1); do
        [[ $SECONDS -lt $deadline ]] || die "etcd does not accept this host: $said"
        sleep 1
    done
}


# Makes this host a voting member when it has all data. Until then it is a learner: its vote is not needed for a quorum.
etcd_promote() {
    local deadline=$((SECONDS + 60 * NGX_PGQ_PATIENCE)) list='' id='' said=

    until list=$(etcd_peers member list 2>&1); do
        [[ $SECONDS -lt $deadline ]] || die "the other members of etcd do not answer: $list"
        sleep 1
    done

    while id=$(sed -n "s#^\([0-9a-f]*\), .*https://$name:2380.*, true\$#\1#p" <<< "$list")
        [[ -n $id ]]
    do
        said=$(etcd_peers member promote "$id" 2>&1) && return
        [[ $SECONDS -lt $deadline ]] || die "etcd does not make this host a voting member: $said"
        sleep 1
        list=$(etcd_peers member list 2>/dev/null) || true
    done
}


# etcdctl at the other members.
etcd_peers() {
    local endpoint others=()

    for endpoint in "${database_names[@]}"; do
        [[ $endpoint == "$name" ]] || others+=("$endpoint")
    done

    etcdctl --endpoints="$(each , 'https://%:2379' "${others[@]}")" --cacert=/etc/ngx_pgq/etcd-ca.crt \
        --cert=/etc/ngx_pgq/etcd.crt --key=/etc/ngx_pgq/etcd.key --command-timeout="$((5 * NGX_PGQ_PATIENCE))s" "$@"
}


# Prints the member id of this host in a running cluster, or nothing. Fails if no cluster is running.
etcd_member() {
    local list

    list=$(etcd_peers member list 2>/dev/null) || return 1
    sed -n "s#^\([0-9a-f]*\), .*https://$name:2380.*#\1#p" <<< "$list"
}


# Whether the etcd of another host, with or without a quorum, has data of a cluster. In a new cluster it has none yet.
etcd_in_use() {
    local said

    said=$(etcd_peers endpoint status -w json 2>/dev/null) || true
    [[ $said =~ \"revision\":([0-9]+) && ${BASH_REMATCH[1]} -gt 1 ]]
}


# Prints the members of etcd in the form of ETCD_INITIAL_CLUSTER; a member that was just added has no name yet.
etcd_cluster() {
    etcd_peers member list | sed -n 's#.*https://\([^:]*\):2380.*#\1=https://\1:2380#p' | paste -sd ,
}


# With a backup host PostgreSQL archives to it, and backups are made when they are due.
archive() {
    local text tool

    for tool in backup restore; do
        put "/usr/local/lib/ngx_pgq/$tool" 755 root < "$kit/patroni/$tool"
    done
    put /etc/systemd/system/ngx_pgq_backup.service 644 root < "$kit/patroni/backup.service"
    put /etc/systemd/system/ngx_pgq_backup.timer 644 root < "$kit/patroni/backup.timer"

    if [[ ${#backup_names[@]} -eq 0 ]]; then
        rm -f "$root/etc/pgbackrest.conf"
        [[ -n $root ]] || systemctl disable --now --quiet ngx_pgq_backup.timer 2>/dev/null || true
        return
    fi

    text=$(fill "$kit/patroni/pgbackrest.conf.in" NAME="$name" BACKUP="${backup_names[0]}")
    put /etc/pgbackrest.conf 644 root <<< "$text"
    [[ -n $root ]] || systemctl daemon-reload
    service ngx_pgq_backup.timer restart /etc/systemd/system/ngx_pgq_backup.timer
}


# The lines of pg_hba.conf: passwords only over TLS, and only from hosts of the cluster.
access() {
    local from

    for from in "${databases[@]}"; do
        echo "hostssl replication replicator $from/32 scram-sha-256"
        echo "hostssl postgres rewind $from/32 scram-sha-256"
    done
    for from in "${webs[@]}"; do
        echo "hostssl posts ngx_pgq_web $from/32 scram-sha-256"
    done
}


patroni() {
    local hba text rest replicator rewind archive=/bin/true restore=${NGX_PGQ_RESTORE:-}

    [[ ${#backup_names[@]} -eq 0 ]] || archive='pgbackrest --stanza=ngx_pgq archive-push %p'
    if [[ -n $restore && $restore != latest ]]; then    # pgBackRest reads no other form
        restore=$(date -u -d "$restore" +'%F %T.%6N+00' 2>/dev/null) || die "$NGX_PGQ_RESTORE is not a valid time to restore"
    fi
    rest=$(secret rest) replicator=$(secret replicator) rewind=$(secret rewind)
    mapfile -t hba < <(access)

    text=$(fill "$kit/patroni/patroni.yml.in" NAME="$name" ADDRESS="$address" DATABASES="$(each ', ' % "${databases[@]}")" \
        ETCDS="$(each ', ' "'%:2379'" "${database_names[@]}")" HBA="$(each $'\n' '    - %' "${hba[@]}")" \
        ARCHIVE="$archive" METHOD="$([[ -n $restore ]] && echo restore || echo initdb)" RESTORE="${restore:-latest}" \
        REST="$rest" REPLICATOR="$replicator" REWIND="$rewind" \
        TTL=$((20 * NGX_PGQ_PATIENCE)) LOOP_WAIT=$((5 * NGX_PGQ_PATIENCE)) RETRY_TIMEOUT=$((5 * NGX_PGQ_PATIENCE)) WAL_TIMEOUT=$((8 * NGX_PGQ_PATIENCE)))
    put /etc/patroni/config.yml 600 postgres:postgres <<< "$text"

    put /etc/systemd/system/patroni.service.d/ngx_pgq.conf 644 root < "$kit/patroni/patroni.service.conf"

    # Only Patroni may start PostgreSQL.
    if [[ -z $root ]]; then
        systemctl mask --quiet postgresql.service
        systemctl daemon-reload
    fi

    service patroni.service reload /etc/patroni/config.yml /etc/ngx_pgq/postgres.crt /etc/ngx_pgq/etcd-client.crt
}
