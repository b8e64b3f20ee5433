# shellcheck shell=bash disable=SC2154
# The role of a web host: nginx with the module, and HAProxy. Sourced by setup, whose variables it uses.

setup_web() {
    firewall \
        "ip saddr { $NGX_PGQ_CLIENTS } tcp dport 80 accept" \
        'ip saddr @webs tcp dport 5000 accept'

    haproxy
    nginx
}


haproxy() {
    local i text servers=''

    for i in "${!databases[@]}"; do
        servers+="    server ${database_names[i]} ${databases[i]}:5432"
        servers+=" verifyhost ${database_names[i]} check-sni ${database_names[i]}"$'\n'
    done

    text=$(fill "$kit/haproxy/haproxy.cfg.in" NAME="$name" ADDRESS="$address" CHECK=$((3 * NGX_PGQ_PATIENCE)) \
        SERVERS="${servers%$'\n'}")
    put /etc/haproxy/haproxy.cfg 644 root <<< "$text"
    put /etc/systemd/system/haproxy.service.d/ngx_pgq.conf 644 root < "$kit/haproxy/haproxy.service.conf"
    [[ -n $root ]] || systemctl daemon-reload
    service haproxy.service reload /etc/haproxy/haproxy.cfg /etc/ngx_pgq/ca.crt
}


nginx() {
    local door text password doors=("$name")

    for door in "${web_names[@]}"; do
        [[ $door == "$name" ]] || doors+=("$door")
    done

    put /usr/lib/nginx/modules/ngx_http_pgq_module.so 644 root < "$kit/parts/ngx_http_pgq_module.so"
    password=$(secret web)
    put /etc/ngx_pgq/pgpass 600 root <<< "*:*:posts:ngx_pgq_web:$password"
    text=$(fill "$kit/provision/host/nginx.conf.in" NAME="$name" DOORS="$(each , % "${doors[@]}")" \
        CONNECT=$((2 * NGX_PGQ_PATIENCE)))
    put /etc/nginx/nginx.conf 644 root <<< "$text"

    put /etc/systemd/system/nginx.service.d/ngx_pgq.conf 644 root < "$kit/provision/host/nginx.service.conf"
    [[ -n $root ]] || systemctl daemon-reload

    # A module is loaded by a new process alone; and who has started anew has read everything.
    service nginx.service restart /usr/lib/nginx/modules/ngx_http_pgq_module.so
    service nginx.service reload /etc/nginx/nginx.conf /etc/ngx_pgq/pgpass
}
