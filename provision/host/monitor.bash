# shellcheck shell=bash disable=SC2154
# The role of a monitoring host: Prometheus, which scrapes all hosts of the cluster, with the alerts and the page of the package
# ngx-pgq-common. Sourced by setup, whose variables it uses.

setup_monitor() {
    local from=$root/usr/share/ngx-pgq/monitoring

    firewall 'ip saddr @monitors tcp dport 9090 accept'

    targets "$from/prometheus.yml" | put /etc/prometheus/prometheus.yml 644 root
    put /etc/prometheus/rules.yml 644 root < "$from/rules.yml"
    put /etc/prometheus/consoles/console.html 644 root < "$from/console.html"

    # A cluster of six hosts has 11,000 series, each with 5760 samples a day of one to two bytes.
    prometheus_service prometheus "--web.listen-address=$address:9090" --storage.tsdb.retention.time=30d --storage.tsdb.retention.size=4GB
    service prometheus.service reload /etc/prometheus/prometheus.yml /etc/prometheus/rules.yml
}


# targets FILE: prints FILE with the hosts of this cluster in the place of pg1 to pg3, web1 and web2.
targets() {
    sed -E -e "s/\[pg1:([0-9]+), pg2:[^,]*, pg3:[^,]*\]/[$(each ', ' '%:\1' "${database_names[@]}")]/" \
        -e "s/\[web1:([0-9]+), web2:.*\]/[$(each ', ' '%:\1' "${web_names[@]}")]/" \
        -e "s/\[pg1:([0-9]+), pg2:.*, web2:.*\]/[$(each ', ' '%:\1' "${hosts[@]}")]/" "$1"
}
