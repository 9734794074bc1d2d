#!/usr/bin/env bash
# Builds the image that Dockerfile describes, without a container engine, and runs it once.
#
#     sudo bash tests/image.sh          makes the two base images here, from Debian's packages and this machine's Rust
#     sudo PULL=1 bash tests/image.sh   pulls them, where a registry that has them is configured
#
# Needs root on a Debian machine and, without PULL=1, the Rust of the Dockerfile (by rustup). Installs buildah,
# debootstrap, curl and procps if they are missing, and leaves them. Everything else it makes is below one temporary
# directory, some 4 GiB of it while it runs, and is gone when it ends. MIRROR=URL: another Debian mirror.
set -euo pipefail

script=$(readlink -f "$0")
cd "$(dirname "$script")/.."

if [[ $(id -u) != 0 ]]; then
    echo "$0: needs root" >&2
    exit 1
fi
# A mount namespace of its own: no mount made below can reach the machine, or outlive the script.
if [[ ${SMG_IMAGE_NAMESPACE:-} != 1 ]]; then
    SMG_IMAGE_NAMESPACE=1 exec unshare --mount "$BASH" "$script" "$@"
fi

work=$(mktemp -d /var/tmp/smg-image.XXXXXX)
images=$work/images
running=()
# Where buildah keeps something whatever its --root is.
outside=(/var/lib/containers /var/cache/containers)
made=()

step() { printf '\n=== %s (after %d s)\n' "$*" "$SECONDS"; }

fail() {
    echo "FAILED: $*" >&2
    local log
    for log in "$work"/*.log; do
        [[ -s $log ]] && printf -- '--- the end of %s\n' "${log##*/}" && tail -n 30 "$log"
    done >&2
    exit 1
}

cleanup() {
    local pid mount
    trap - EXIT
    for pid in "${running[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${running[@]}"; do
        ends_within 15 "$pid" || kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    # Deepest first. Removing the directory must not follow a mount out of it.
    while read -r mount; do
        umount --lazy "$mount" || true
    done < <(awk -v top="$work/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | tac)
    rm -rf --one-file-system "$work"
    umount --lazy "${outside[@]}" 2>/dev/null || true
    for mount in "${made[@]}"; do
        rmdir --ignore-fail-on-non-empty "$mount" || true
    done
}

# Runs a command that may take so many seconds. In the background, so that a signal to the script is answered at
# once; `timeout` passes the signal on to everything the command has started.
bounded() {
    local seconds=$1 pid status=0
    shift
    timeout --kill-after=20 "$seconds" "$@" &
    pid=$!
    running+=("$pid")
    wait "$pid" || status=$?
    forget "$pid"
    return "$status"
}

# Drops a process that has ended: its number may soon be another's.
forget() {
    local pid kept=()
    for pid in "${running[@]}"; do
        [[ $pid == "$1" ]] || kept+=("$pid")
    done
    running=("${kept[@]}")
}

ends_within() {
    local end=$((SECONDS + $1))
    while kill -0 "$2" 2>/dev/null; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# Waits until a command succeeds.
eventually() {
    local seconds=$1 end
    shift
    end=$((SECONDS + seconds))
    until "$@"; do
        ((SECONDS < end)) || fail "not within $seconds s: $*"
        sleep 0.1
    done
}

# vfs works on every file system, at the price of whole copies.
buildah_args=(--root "$images/root" --runroot "$images/run" --storage-driver vfs)
b() { timeout --kill-after=20 300 buildah "${buildah_args[@]}" "$@"; }

install_tools() {
    local missing=() pair
    for pair in buildah:buildah debootstrap:debootstrap curl:curl pgrep:procps; do
        command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    step "installing ${missing[*]}"
    bounded 300 apt-get -o DPkg::Lock::Timeout=240 update -q
    DEBIAN_FRONTEND=noninteractive bounded 600 \
        apt-get -o DPkg::Lock::Timeout=240 install -q -y --no-install-recommends "${missing[@]}"
}

# Everything that buildah writes goes into the work directory.
contain_buildah() {
    local directory
    mkdir "$images" "$work/tmp"
    export TMPDIR=$work/tmp BUILDAH_ISOLATION=chroot
    for directory in "${outside[@]}"; do
        if [[ ! -d $directory ]]; then
            mkdir "$directory"
            made+=("$directory")
        fi
        mkdir -p "$work/outside$directory"
        mount --bind "$work/outside$directory" "$directory"
    done
}

# make_base IMAGE SUITE PACKAGES: Debian's smallest system and some packages, less what `slim` images leave out.
# A fourth argument names a function that completes it, given its root directory.
make_base() {
    local image=$1 suite=$2 packages=$3 complete=${4:-:} container root
    step "making $image"
    container=$(b from scratch)
    root=$(b mount "$container")
    mkdir -p "$work/packages"
    bounded 900 debootstrap --variant=minbase --cache-dir="$work/packages" ${packages:+--include="$packages"} \
        "$suite" "$root" ${MIRROR:+"$MIRROR"} >"$work/debootstrap.log" 2>&1 || fail "debootstrap: $?"
    rm "$work/debootstrap.log"
    rm -rf "$root"/usr/share/{doc,info,locale,man}/* "$root"/var/{cache/apt,lib/apt/lists,log}/*
    # Those of this machine.
    rm -f "$root"/etc/{hostname,resolv.conf}
    "$complete" "$root"
    bounded 600 buildah "${buildah_args[@]}" commit --quiet --rm "$container" "$image" >/dev/null
}

# Copies this machine's toolchain in, and tells its cargo where the crates will be.
add_rust() {
    local root=$1 sysroot host
    sysroot=$(rustc --print sysroot)
    host=$(rustc -vV | awk '$1 == "host:" { print $2 }')
    mkdir -p "$root/usr/local/lib/rustlib" "$root/.cargo"
    cp -a "$sysroot"/bin/{cargo,rustc} "$root/usr/local/bin/"
    cp -a "$sysroot"/lib/lib*.so* "$root/usr/local/lib/"
    cp -a "$sysroot/lib/rustlib/$host" "$root/usr/local/lib/rustlib/"
    # /.cargo: above every directory that a build can be in. /mnt: a directory that is there already, so that
    # mounting over it leaves no trace in an image.
    cat >"$root/.cargo/config.toml" <<-END
		[source.crates-io]
		replace-with = "machine"
		[source.machine]
		directory = "/mnt"
		[net]
		offline = true
	END
}

# The crates of Cargo.lock, got the way cargo gets them on this machine: its configuration, caches, proxies and
# certificates matter here, and not inside of the build.
collect_crates() {
    step "collecting the crates"
    bounded 900 cargo vendor --locked --versioned-dirs --quiet "$work/crates" >/dev/null 2>"$work/vendor.log" ||
        fail "cargo vendor: $?"
}

make_bases() {
    local image tag version
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    version=$(rustc --version | awk '{ print $2 }')
    while read -r image; do
        tag=${image#*:}
        case $image in
        debian:*-slim) make_base "$image" "${tag%-slim}" "" ;;
        "rust:$version-"*) make_base "$image" "${tag##*-}" gcc,libc6-dev,ca-certificates add_rust ;;
        *) fail "no recipe for $image with Rust $version" ;;
        esac
    done < <(awk 'toupper($1) == "FROM" { print $2 }' Dockerfile)
}

build() {
    local options=(--pull-never --volume "$work/crates:/mnt:ro")
    if [[ ${PULL:-} == 1 ]]; then
        options=(--pull)
    fi
    step "building the image"
    # The format has room for HEALTHCHECK, which OCI's has not.
    bounded 3000 buildah "${buildah_args[@]}" bud --isolation chroot --format docker "${options[@]}" -t smg . ||
        fail "the build: $?"
}

# setting GO-TEMPLATE: a list in the image's settings, a line for each entry.
setting() {
    b inspect --type image --format "{{range .Docker.Config.$1}}{{println .}}{{end}}" smg | sed '/^$/d'
}

# start NAME LOG ENVIRONMENT ARGUMENT...: a container of the image, with its entrypoint and user, in the background.
# `started` is the process to signal: between it and us are processes of buildah, which kill what they run.
start() {
    local container=$1 log=$2 environment=$3 name=${entrypoint[0]##*/}
    shift 3
    b from --pull-never --name "$container" smg >/dev/null
    : >"$log"
    timeout --kill-after=20 900 buildah "${buildah_args[@]}" run --isolation chroot --env "$environment" \
        --volume "$PWD/guests/dist:/modules:ro" "$container" -- "${entrypoint[@]}" "$@" >"$log" 2>&1 &
    outer=$!
    running+=("$outer")
    eventually 30 grep -q '^listening on ' "$log"
    address=$(awk '/^listening on / { print $3; exit }' "$log")
    started=$outer
    while [[ $(<"/proc/$started/comm") != "$name" ]]; do
        started=$(pgrep --oldest --parent "$started") || fail "$name isn't there"
    done
}

# stop OUTER STARTED: SIGTERM, and exit code 0 within seconds.
stop() {
    local status=0
    kill -TERM "$2"
    ends_within 20 "$1" || fail "still there after SIGTERM"
    wait "$1" || status=$?
    forget "$1"
    [[ $status == 0 ]] || fail "exit code $status after SIGTERM"
}

# answers STATUS CURL-ARGUMENT...: whether that is the answer; its body is kept.
answers() {
    local wanted=$1 status
    shift
    status=$(curl --silent --max-time 10 --noproxy '*' --output "$work/answer.log" --write-out '%{http_code}' "$@") ||
        true
    [[ $status == "$wanted" ]]
}

check() {
    local what=$1
    shift
    "$@" || fail "$what"
    echo "ok: $what"
}

run_once() {
    local entrypoint healthcheck user outer started address worker worker_outer gateway gateway_outer json chat
    mapfile -t entrypoint < <(setting Entrypoint)
    mapfile -t healthcheck < <(setting Healthcheck.Test)
    user=$(b inspect --type image --format '{{.Docker.Config.User}}' smg)

    step "running it"
    start worker "$work/worker.log" SMG_PORT=0 echo-worker --port=0
    worker=$started worker_outer=$outer
    start gateway "$work/gateway.log" SMG_PORT=0 --host=127.0.0.1 --enable-wasm --wasm-module-dir=/modules \
        --worker-urls="$address"
    gateway=$started gateway_outer=$outer

    json='content-type: application/json'
    chat=(-H "$json" -d '{"model":"echo","messages":[{"role":"user","content":"marco polo"}]}'
        "$address/v1/chat/completions")
    check "it runs as $user, without privileges" unprivileged "$gateway" "$user"
    eventually 20 answers 200 "$address/readiness"
    check "GET /health" answers 200 "$address/health"
    check "a chat completion through the gateway" answers 200 "${chat[@]}"
    check "its answer is the worker's" grep -q "marco polo" "$work/answer.log"
    check "the image's health check" image_health 0
    check "authorities for https workers" grep -q "BEGIN CERTIFICATE" "$(b mount gateway)/etc/ssl/certs/ca-certificates.crt"

    check "a module from a mounted directory is deployed" answers 200 -H "$json" "$address/wasm" -d '{"modules":[{
        "name":"auth","file_path":"/modules/auth.wasm","module_type":"Middleware",
        "attach_points":[{"Middleware":"OnRequest"}]}]}'
    check "it refuses who has no key" answers 401 "${chat[@]}"
    check "it lets pass who has one" answers 200 -H "x-api-key: secret-api-key-12345" "${chat[@]}"

    stop "$gateway_outer" "$gateway"
    echo "ok: SIGTERM ends the gateway with exit code 0"
    check "the health check of a gateway that is gone" image_health 1
    stop "$worker_outer" "$worker"
    echo "ok: SIGTERM ends the worker with exit code 0"
}

unprivileged() {
    awk -v user="$2" '$1 == "Uid:" { uid = $2 == user && $3 == user && $4 == user && $5 == user && user > 0 }
        $1 == "CapEff:" { none = $2 ~ /^0+$/ } END { exit !(uid && none) }' "/proc/$1/status"
}

# image_health EXIT-CODE: what HEALTHCHECK says, in the gateway's container, of the gateway's port.
image_health() {
    local status=0
    [[ ${healthcheck[0]} == CMD ]] || fail "not a plain command: ${healthcheck[*]}"
    bounded 20 buildah "${buildah_args[@]}" run --isolation chroot --env "SMG_PORT=${address##*:}" gateway -- \
        "${healthcheck[@]:1}" >"$work/health.log" 2>&1 || status=$?
    [[ $status == "$1" ]]
}

sizes() {
    local root
    root=$(b mount gateway)
    step "sizes"
    b images --format '{{.Size}}  {{.Name}}:{{.Tag}}'
    du --apparent-size -h "$root/usr/local/bin/smg" | awk '{ print $1 "  the executable in it" }'
}

main() {
    install_tools
    contain_buildah
    if [[ ${PULL:-} != 1 ]]; then
        make_bases
        collect_crates
    fi
    build
    run_once
    sizes
    step "done"
}

trap cleanup EXIT
trap 'exit 130' INT TERM HUP
main
