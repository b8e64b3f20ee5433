# shellcheck shell=bash disable=SC2154
# The role of a web host: nginx with the module, and HAProxy. Sourced by setup, whose variables it uses.

setup_web() {
    local ports=443 exempt=''

    [[ $NGX_PGQ_HTTP == off ]] || ports='{ 80, 443 }'
    [[ -z $NGX_PGQ_UNLIMITED ]] || exempt="ip saddr != { $NGX_PGQ_UNLIMITED } "

    firewall \
        "${exempt}tcp dport $ports add @connections { ip saddr ct count over 512 } reject with tcp reset" \
        "ip saddr { $NGX_PGQ_CLIENTS } tcp dport $ports accept" \
        'ip saddr @monitors tcp dport { 8404, 9180 } accept' \
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
    local web text password plain='' plain_other='' origins='' certificate=host unlimited haproxies=("$name")

    for web in "${web_names[@]}"; do
        [[ $web == "$name" ]] || haproxies+=("$web")
    done

    password=$(secret web)
    put /etc/ngx_pgq/pgpass 600 root <<< "*:*:posts:ngx_pgq_web:$password"

    # The operator may have added a certificate of another CA.
    [[ ! -e $kit/secrets/endpoint.crt ]] || certificate=endpoint
    put /etc/ngx_pgq/endpoint.key 600 root < "$kit/secrets/$certificate.key"
    put /etc/ngx_pgq/endpoint.crt 644 root < "$kit/secrets/$certificate.crt"

    if [[ $NGX_PGQ_HTTP != off ]]; then
        plain=$'\n        listen      80;' plain_other=$'\n        listen 80 default_server;'
    fi

    [[ -z $NGX_PGQ_ORIGINS ]] || origins=$'\n'"    pgq_origins             $NGX_PGQ_ORIGINS;"
    IFS=', ' read -ra unlimited <<< "$NGX_PGQ_UNLIMITED"
    text=$(fill "$kit/provision/host/nginx.conf.in" NAME="$name" ADDRESS="$address" HAPROXIES="$(each , % "${haproxies[@]}")" \
        CONNECT=$((2 * NGX_PGQ_PATIENCE)) RATE="$NGX_PGQ_RATE" PLAIN="$plain" PLAIN_OTHER="$plain_other" ORIGINS="$origins" \
        UNLIMITED="$(each $'\n' '        % 0;' "${unlimited[@]}")" NAMES="$(server_names)")
    put /etc/nginx/nginx.conf 644 root <<< "$text"

    put /etc/systemd/system/nginx.service.d/ngx_pgq.conf 644 root < "$kit/provision/host/nginx.service.conf"
    [[ -n $root ]] || systemctl daemon-reload

    # Only a new process uses new programs and libraries; a restart makes the reload unnecessary.
    versions libnginx-mod-http-pgq nginx libpq5 libcjson1 | put /etc/ngx_pgq/nginx.versions 644 root
    service nginx.service restart /etc/ngx_pgq/nginx.versions
    service nginx.service reload /etc/nginx/nginx.conf /etc/ngx_pgq/pgpass /etc/ngx_pgq/endpoint.crt \
        /etc/ngx_pgq/endpoint.key
}


# Accepted host names: those in the certificate, and IP addresses, which DNS rebinding cannot use.
server_names() {
    printf '%s "~^\\d+\\.\\d+\\.\\d+\\.\\d+$"' "$(tr , '\n' < "$kit/secrets/host.names" | sed -n 's/^DNS://p' | tr '\n' ' ')"
}
