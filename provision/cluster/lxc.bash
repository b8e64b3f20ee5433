# shellcheck shell=bash disable=SC2154
# A cluster's hosts as containers of this machine: their shared root file system, their network, start and stop.
# Sourced by provision/cluster/cluster.
#
# build/cluster/ has what can be reused: root/, Debian 13 with the packages of all roles, and builder/, an overlay with the
# compiler. run/cluster/ has the hosts in lxc/ and hosts/, each an overlay over that root. Outside of these directories a
# running cluster has a bridge and the hosts' network interfaces; every mount is in a namespace that ends with the process
# that made it.

. "$top/provision/debian.bash"

cache=$top/build/cluster
lxc=$state/lxc


# Prints why containers cannot run here, in one line, or nothing.
lxc_obstacle() {
    local tool

    [[ $EUID -eq 0 ]] || { echo "containers with systemd need root"; return; }

    for tool in lxc-start debootstrap ip; do
        command -v "$tool" > /dev/null || { echo "$tool is not installed"; return; }
    done

    if [[ -z $(lxc_cgroup) ]]; then
        echo "there is no cgroup2 hierarchy, which systemd needs"
    elif ! unshare --mount --pid --fork true 2>/dev/null; then
        echo "mount namespaces are not permitted"
    elif ! ip link add pgq-try type bridge 2>/dev/null; then
        echo "making a bridge is not permitted"
    else
        ip link delete pgq-try
    fi
}


# Prints the mount point of cgroup2, which may be mounted together with cgroup1.
lxc_cgroup() {
    local place

    for place in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        if [[ -e $place/cgroup.controllers ]]; then
            echo "$place"
            return
        fi
    done
}


# ---- the root file system

# Makes the shared root file system once, and again when its packages change.
lxc_root() {
    local root=$cache/root made
    local include=systemd,systemd-sysv,dbus,iproute2,procps,nftables,ca-certificates,libfaketime

    made=$(echo "$include" | cat - "$top/provision/host/packages" | sha256sum)
    [[ ! -f $cache/root.made || $(< "$cache/root.made") != "$made" ]] || return 0
    [[ ! -f $state/network ]] || die "the running hosts have other packages: make cluster-stop first"

    say "making the root file system of the hosts (once)"
    rm -rf --one-file-system "$cache"
    mkdir -p "$cache"
    debian_root trixie "$root" "$cache/root.log" "$include"

    mkdir -p "$root/root/kit/provision"
    cp -r "$top/provision/host" "$root/root/kit/provision/"
    inside "$root" /root/kit/provision/host/packages database web backup monitor >> "$cache/root.log" 2>&1 \
        || { tail -n 5 "$cache/root.log" >&2; die "installing packages failed, see $cache/root.log"; }

    # Containers cannot load kernel modules.
    inside "$root" systemctl mask systemd-modules-load.service > /dev/null 2>&1
    inside "$root" apt-get clean
    rm -rf "$root/root/kit" "$root"/var/lib/apt/lists/*
    : > "$root/etc/machine-id"
    echo "$made" > "$cache/root.made"
}


# Builds the packages for the hosts if the sources have changed, in an overlay over the root with the compiler and a copy of
# the sources.
lxc_packages() {
    local made

    made=$(cd "$top" && sources | grep -zvE '^(\./)?(bench|test)/' | sort -z | xargs -0 sha256sum | sha256sum)
    [[ ! -f $cache/made/made || $(< "$cache/made/made") != "$made" ]] || return 0

    say "building the packages of the hosts"
    rm -f "$cache/made/made"    # if this fails, the next call builds, also from the sources of the last build
    mkdir -p "$cache"/builder/{upper,work,root} "$cache/made"

    # shellcheck disable=SC2016
    (cd "$top" && sources | tar -c --null --files-from=-) | unshare --mount --pid --fork --kill-child bash -ec '
        cd "$1/builder"
        mount -t overlay overlay -o "lowerdir=$1/root,upperdir=upper,workdir=work" root
        rm -rf root/src
        mkdir -p root/src/made
        tar -C root/src -x
        mount --bind "$1/made" root/src/made
        mount -t proc proc root/proc
        mount --rbind /dev root/dev
        chroot root /src/provision/package/repository /src/made' packages "$cache" > "$cache/packages.log" 2>&1 \
        || { tail -n 20 "$cache/packages.log" >&2; die "building for Debian 13 failed, see $cache/packages.log"; }
    echo "$made" > "$cache/made/made"
}


# ---- the network

# Takes a free subnet, 192.168.56.0/24 if possible, by making its bridge.
lxc_network() {
    local third

    for third in {56..99}; do
        [[ -z $(ip -4 -o address show to "192.168.$third.0/24") ]] || continue
        [[ -z $(ip -4 route show root "192.168.$third.0/24") ]] || continue
        ip link add "pgq-$third" type bridge 2>/dev/null || continue
        echo "$third" > "$state/network"
        ip address add "192.168.$third.1/24" dev "pgq-$third"
        ip link set "pgq-$third" up
        return
    done

    die "192.168.56.0/24 to 192.168.99.0/24 are all in use"
}


# ---- a host

lxc_name() { printf 'pgq-%s-%s\n' "$(< "$state/network")" "$1"; }


lxc_configure() {
    local name=$1 address=$2 third container
    third=$(< "$state/network")
    container=$(lxc_name "$name")

    mkdir -p "$lxc/$container" "$state/hosts/$name/upper"

    cat > "$lxc/$container/config" <<-END
	lxc.uts.name = $name
	lxc.rootfs.path = overlay:$cache/root:$state/hosts/$name/upper
	lxc.mount.auto = proc:mixed sys:mixed
	lxc.mount.entry = $(lxc_cgroup)/$container sys/fs/cgroup none bind,create=dir 0 0
	lxc.cgroup.dir.container = $container
	lxc.cgroup.dir.monitor = $container.monitor
	lxc.autodev = 1
	lxc.tty.max = 0
	lxc.pty.max = 64
	lxc.apparmor.profile = unconfined
	lxc.net.0.type = veth
	lxc.net.0.link = pgq-$third
	lxc.net.0.veth.pair = pgq-$third-$name
	lxc.net.0.name = eth0
	lxc.net.0.ipv4.address = $address/24
	lxc.net.0.flags = up
	END

    mkdir -p "$state/hosts/$name/upper/etc"
    echo "$name" > "$state/hosts/$name/upper/etc/hostname"
}


lxc_running() { [[ $(lxc-info -P "$lxc" -n "$(lxc_name "$1")" -sH 2>/dev/null) == RUNNING ]]; }


lxc_booted() { [[ $(lxc_on "$1" systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]; }


lxc_start() {
    local name=$1 container
    container=$(lxc_name "$name")

    lxc_running "$name" || lxc-start -P "$lxc" -n "$container" -d -o "$lxc/$container/log" \
        || { tail -n 5 "$lxc/$container/log" >&2; die "$name does not start, see $lxc/$container/log"; }
    wait_until 60 lxc_booted "$name" || die "$name does not boot"
}


# Switches a host off without a shutdown.
lxc_off() { ! lxc_running "$1" || lxc-stop -P "$lxc" -n "$(lxc_name "$1")" -k; }


# Shuts a host down; processes that do not end within 100 s are killed.
lxc_down() { ! lxc_running "$1" || lxc-stop -P "$lxc" -n "$(lxc_name "$1")" -t 100; }


# Freezes and resumes all processes of a host.
lxc_freeze() { lxc-freeze -P "$lxc" -n "$(lxc_name "$1")"; }


lxc_thaw() { lxc-unfreeze -P "$lxc" -n "$(lxc_name "$1")"; }


# lxc_cable NAME up|down: connects or disconnects the host, at its interface on this machine.
lxc_cable() { ip link set "$(lxc_name "$1")" "$2"; }


# Removes a host and its data.
lxc_lose() {
    lxc_off "$1"
    rm -rf "${lxc:?}/$(lxc_name "$1")" "$state/hosts/$1"
}


# lxc_on NAME COMMAND...: runs COMMAND as root on that host.
lxc_on() {
    local name=$1
    shift

    lxc-attach -P "$lxc" -n "$(lxc_name "$name")" --clear-env \
        --set-var PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --set-var HOME=/root \
        --set-var LC_ALL=C.UTF-8 --set-var "TERM=${TERM:-dumb}" -- "$@"
}


# lxc_give NAME DIR: copies DIR to /root of that host.
lxc_give() {
    tar -C "$(dirname "$2")" -c "$(basename "$2")" | lxc_on "$1" tar -C /root -x
}


# Removes the cgroups that containers leave, in all hierarchies.
lxc_cgroups_remove() {
    local place

    for place in /sys/fs/cgroup/{,*/}; do
        find "$place" -mindepth 1 -depth -type d \( -path "$place$1*" -o -path "${place}lxc.pivot" \) -exec rmdir {} + \
            2>/dev/null || true
    done
}


# Removes the cluster: containers, bridge, cgroups, files.
lxc_remove() {
    local name third=

    [[ ! -f $state/network ]] || third=$(< "$state/network")

    if [[ -n $third ]]; then
        for name in "$@"; do
            lxc_off "$name" || say "$name does not stop"
        done
        [[ ! -d /sys/class/net/pgq-$third ]] || ip link delete "pgq-$third"
        lxc_cgroups_remove "pgq-$third-"
    fi

    rm -rf "$state"
}
