# shellcheck shell=bash disable=SC2154
# The status of a cluster, and the two commands that may lose data when used at the wrong moment: each checks first.
# Sourced by provision/cluster/cluster.

# A clock that differs from this machine's by more seconds is reported.
skew_reported=2


# skew FROM TO CLOCK: prints the difference between CLOCK and this machine's clock, unless it is small. CLOCK was read at
# some moment between FROM and TO.
skew() {
    awk -v from="$1" -v to="$2" -v clock="$3" -v least="$skew_reported" 'BEGIN {
        skew = clock < from ? clock - from : clock > to ? clock - to : 0
        if (skew > least || skew < -least) printf "CLOCK %+.0f s", skew
    }'
}


# Prints a line from each database host, also while there is no leader.
database_hosts() {
    local host line from wrong=() most=0 newest=()

    for host in "${databases[@]}"; do
        from=$EPOCHREALTIME
        line=$(on "$host" timeout 40 /usr/local/lib/ngx_pgq/state < /dev/null 2> /dev/null) || line="$host: does not answer"

        if [[ $line =~ ^(.*)'; clock '([0-9.]+)$ ]]; then
            line="${BASH_REMATCH[1]}; $(skew "$from" "$EPOCHREALTIME" "${BASH_REMATCH[2]}")"
            line=${line%; }
        fi
        echo "$line"

        [[ ! $line =~ newest\ timeline\ ([0-9]+) ]] || {
            newest+=("$host:${BASH_REMATCH[1]}")
            [[ $line != *"PostgreSQL primary"* || $host != "$leader" ]] || most=${BASH_REMATCH[1]}
        }
        case $line in
            *"does not stream"*|*"does not replay"*) wrong+=("$host does not replicate") ;;
            *"PostgreSQL primary"*) [[ $host == "$leader" ]] || wrong+=("$host is a primary that does not hold Patroni's lock") ;;
        esac
        [[ $line != *", movers stopped"* ]] || wrong+=("the movers of $host are stopped")
        [[ $line != *CLOCK* ]] || wrong+=("the clock of $host differs")
    done

    for host in "${newest[@]}"; do
        [[ $most -eq 0 || ${host#*:} -le $most ]] || wrong+=("${host%:*} has timeline ${host#*:}, which the primary does not have")
    done
    [[ ${#wrong[@]} -eq 0 ]] || printf '! %s: see docs/runbook.md\n' "${wrong[@]}"
}


web_hosts() {
    local host from said page clock

    for host in "${webs[@]}"; do
        from=$EPOCHREALTIME
        said=$(on "$host" curl -s --max-time 5 -w '\n%header{date}' http://127.0.0.1:9180/status < /dev/null) || said='nginx does not answer'
        page=$(printf '%s' "${said%$'\n'*}")    # without the line break
        printf '%s: %s' "$host" "${page/,\"subscriptions\":*/\}}"    # without the subscriptions, which may be many
        # The header has whole seconds, and nginx updates its clock only when an event occurs.
        if clock=$(date -d "${said##*$'\n'}" +%s 2> /dev/null); then
            clock=$(skew "${from%.*}" "$EPOCHREALTIME" "$clock")
            [[ -z $clock ]] || printf '\n! %s: %s: see docs/runbook.md' "$host" "$clock"
        fi
        echo
    done
}


monitoring_hosts() {
    local host alerts

    for host in "${monitors[@]}"; do
        if alerts=$(on "$host" promtool query instant "http://$host:9090" 'ALERTS{alertstate="firing"}' < /dev/null 2> /dev/null \
            | sed -E 's/^ALERTS\{alertname="([^"]*)", alertstate="firing"(.*), severity=.*/! \1\2: see docs\/runbook.md/'); then
            echo "$host: alerts: $(grep -c . <<< "$alerts")"
            [[ -z $alerts ]] || echo "$alerts"
        else
            echo "$host: Prometheus does not answer"
        fi
    done
}


status() {
    kind > /dev/null    # fails if there is no cluster
    leader=
    if patronictl list; then
        leader=$(leader) || true
    fi
    database_hosts
    [[ -n $leader ]] || die "Patroni has no leader: see docs/runbook.md"

    sql -X -P pager=off -P footer=off <<'SQL'
select synchronous_standby_names, count(*) filter (where r.sync_state in ('sync', 'quorum')) as synchronous,
       coalesce(max(extract(milliseconds from r.replay_lag))::int, 0) as replay_lag_ms,
       (select 'by hand: see docs/runbook.md' from pg_file_settings
         where name = 'synchronous_standby_names' and sourcefile like '%/postgresql.auto.conf' limit 1) as set
  from (select current_setting('synchronous_standby_names') as synchronous_standby_names) s
  left join pg_stat_replication r on true
 group by 1;
select case when current_setting('archive_command') <> '/bin/true' then last_archived_wal end as archived, last_archived_time as at,
       case when last_failed_time > coalesce(last_archived_time, '-infinity') then last_failed_wal end as cannot_archive
  from pg_stat_archiver;
select coalesce(sum(depth), 0) as waiting, max(oldest) as since,
       count(*) filter (where mover is not null and pid is not null) as movers, sum(messages) as moved,
       (select count(*) from ngx_pgq.dead_letter) as dead_letters, (select max(id) from posts) as last_post
  from ngx_pgq.status;
SQL

    web_hosts
    monitoring_hosts
}


# has_everything HOST: whether the member provably has every acknowledged message; it prints why not.
has_everything() { on "$1" timeout 60 runuser -u postgres -- /usr/local/lib/ngx_pgq/has_everything < /dev/null; }


# failover HOST: makes HOST the primary when a switchover is not possible.
failover() {
    local host=$1

    [[ " ${databases[*]} " == *" $host "* && -n $host ]] || die "which host? make cluster-failover HOST=${databases[0]}, or another of ${databases[*]}"
    leader=$(leader) || leader=
    [[ $leader != "$host" ]] || die "$host is already the primary"
    [[ -z $leader ]] || ! sql -XAtqc 'select 1 from pg_stat_replication where application_name = '"'$host'"' and state = '"'streaming'" 2> /dev/null | grep -q 1 \
        || die "$leader is the primary and $host streams from it: use make cluster-switchover"
    has_everything "$host" || die "refused: $host may lack acknowledged messages (docs/runbook.md)"
    on "$host" patronictl -c /etc/patroni/config.yml failover ngx_pgq --candidate "$host" --force
}


# reinit HOST: replaces HOST's data by a copy of the primary's.
reinit() {
    local host=$1

    [[ " ${databases[*]} " == *" $host "* && -n $host ]] || die "which host? make cluster-reinit HOST=${databases[0]}, or another of ${databases[*]}"
    leader=$(leader) || die "Patroni has no leader: there is nothing to copy"
    [[ $leader != "$host" ]] || die "$host is the primary: the others copy its data"
    has_everything "$leader" || die "the data of $host is kept: see docs/runbook.md"
    on "$leader" patronictl -c /etc/patroni/config.yml reinit ngx_pgq "$host" --force --wait
}
