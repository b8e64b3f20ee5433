# shellcheck shell=bash
# Root file systems of Debian that are not booted: package sources, and commands that run in them.
# Sourced by provision/dev/bare and provision/cluster/lxc.bash.


# Prints the package source of this machine, or MIRROR. Other suites are at the same URL.
debian_mirror() {
    # shellcheck disable=SC2016  # these are apt's names
    printf '%s\n' "${MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' \
        | awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }')}"
}


# Prints the source of security updates, if this machine has one.
debian_security() {
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' \
        | awk '$2 == "Debian-Security" { print $1; exit }'
}


# debian_sources SUITE MIRROR SECURITY: prints the lines of sources.list for a suite.
debian_sources() {
    echo "deb $2 $1 main"
    echo "deb $2 $1-updates main"
    [[ -z $3 ]] || echo "deb $3 $1-security main"
}


# inside ROOT COMMAND...: runs COMMAND in a root file system that is not booted. Mounts and processes end with it.
inside() {
    local root=$1
    shift

    # shellcheck disable=SC2016  # for the shell inside
    unshare --mount --pid --fork --kill-child bash -ec '
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec chroot "$root" "$@"' inside "$root" "$@"
}
