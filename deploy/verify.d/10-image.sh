#!/usr/bin/env bash
# The image: what it is built from, that the embedded backend is not in it, and, where there is podman, the image itself.
set -uo pipefail
# shellcheck source=deploy/lib/charts.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/charts.sh"
cd "$root" || exit 1

# The program as the image has it, but not optimised: in a folder of its own, since its name is that of the other build.
production() {
  [ -n "${SLUICEGATE_PRODUCTION_BIN:-}" ] && return 0
  command -v cargo >/dev/null || { echo "cargo is not there"; return 3; }
  cargo build --locked --target-dir target/production -p sluicegate-cli --no-default-features
}

pinned() { # argument of the Dockerfile
  sed -n "s/^ARG $1=//p" deploy/docker/Dockerfile
}

# Builds and runs the image. BUILDER_IMAGE and RUNTIME_IMAGE replace the base images, SLUICEGATE_PODMAN holds options of
# podman, and SLUICEGATE_PODMAN_BUILD those of its build.
built() {
  command -v podman >/dev/null || { echo "podman is not there"; return 3; }
  local podman builder runtime image=localhost/sluicegate:verify
  read -ra podman <<<"podman ${SLUICEGATE_PODMAN:-}"
  # What an earlier run left is not what this one has built.
  "${podman[@]}" image rm --force "$image" >/dev/null 2>&1
  builder=${BUILDER_IMAGE:-$(pinned BUILDER_IMAGE)}
  runtime=${RUNTIME_IMAGE:-$(pinned RUNTIME_IMAGE)}
  local base
  for base in "$builder" "$runtime"; do
    [ "$base" = scratch ] || "${podman[@]}" image exists "$base" || timeout 300 "${podman[@]}" pull --quiet "$base" || {
      echo "$base cannot be pulled"
      return 3
    }
  done
  "${podman[@]}" run --rm --pull=never --network=none "$builder" true || { echo "podman cannot run containers here"; return 3; }
  # shellcheck disable=SC2086
  "${podman[@]}" build ${SLUICEGATE_PODMAN_BUILD:-} --build-arg "BUILDER_IMAGE=$builder" --build-arg "RUNTIME_IMAGE=$runtime" \
    -f deploy/docker/Dockerfile -t "$image" . || return 1
  local run=("${podman[@]}" run --rm --pull=never --network=none --read-only --cap-drop=ALL --security-opt=no-new-privileges)
  local text
  text=$("${run[@]}" "$image" --help) || return 1
  grep -q '^  run ' <<<"$text" || { echo "there is no command run in it: $text"; return 1; }
  if grep -qE '^  (local|demo) ' <<<"$text"; then
    echo "the embedded backend is in it: $text"
    return 1
  fi
  [ "$("${podman[@]}" image inspect --format '{{.User}}' "$image")" = 65532:65532 ] || { echo "it runs as somebody"; return 1; }
  # It ends for want of credentials, which is as far as it gets here: not for a file that it cannot write.
  text=$("${run[@]}" -e AWS_REGION=eu-central-1 -e AWS_EC2_METADATA_DISABLED=true "$image" run --stream=s --application=app 2>&1)
  grep -q 'no AWS credentials' <<<"$text" || { echo "$text"; return 1; }
}

# A worker in that image, on the embedded backend: it stores events, and ends by itself when it is told to.
works() {
  local podman image=localhost/sluicegate:verify folder backend worker="" status=1
  command -v podman >/dev/null || { echo "podman is not there"; return 3; }
  command -v curl >/dev/null || { echo "curl is not there"; return 3; }
  [ -n "${SLUICEGATE_BIN:-}" ] || { echo "${why:-there is no sluicegate to stand in for AWS}"; return 3; }
  read -ra podman <<<"podman ${SLUICEGATE_PODMAN:-}"
  "${podman[@]}" image exists "$image" || { echo "there is no image of this build"; return 3; }
  folder=$(mktemp -d)
  "$SLUICEGATE_BIN" local --kinesis-port 0 --dynamodb-port 0 --json >"$folder/endpoints" 2>"$folder/log" &
  backend=$!
  if store "$folder"; then status=0; fi
  [ -z "$worker" ] || "${podman[@]}" rm --force "$worker" >/dev/null
  kill "$backend"
  wait "$backend"
  rm -rf "$folder"
  return $status
}

# Sets $worker, of which the caller disposes.
store() { # folder
  local port=19464 aws
  until_true 30 test -s "$1/endpoints" || return 1
  # By name, so that the program has to find an address without the files of a C library.
  endpoint() { sed -n "s/.*\"$1\":\"http:\/\/127.0.0.1:\([0-9]*\)\".*/http:\/\/localhost:\1/p" "$2/endpoints"; }
  aws=(AWS_REGION=eu-central-1 AWS_ACCESS_KEY_ID=nobody AWS_SECRET_ACCESS_KEY=nothing
    "AWS_ENDPOINT_URL_KINESIS=$(endpoint kinesis "$1")" "AWS_ENDPOINT_URL_DYNAMODB=$(endpoint dynamodb "$1")")
  seq 50 | sed 's/.*/{"a":&}/' | env "${aws[@]}" "$SLUICEGATE_BIN" produce --stream s --create-stream 2 --key '{/a}' || return 1
  worker=$("${podman[@]}" run --detach --pull=never --network=host --read-only --cap-drop=ALL \
    --security-opt=no-new-privileges "${aws[@]/#/--env=}" --env=SLUICEGATE_CFG_MAX_BATCH_AGE=200ms "$image" \
    run --stream=s --application=app --admin=127.0.0.1:$port --create-tables) || return 1
  # shellcheck disable=SC2317
  stored() { curl --silent "http://127.0.0.1:$port/metrics" | grep -qx 'sluicegate_events_stored_total 50'; }
  until_true 60 stored || { echo "it has not stored 50 events"; "${podman[@]}" logs "$worker"; return 1; }
  "${podman[@]}" stop --time 35 "$worker" >/dev/null || return 1
  [ "$("${podman[@]}" inspect --format '{{.State.ExitCode}}' "$worker")" = 0 ] || { echo "it did not end well"; return 1; }
}

until_true() { # seconds, command...
  local tries=$(($1 * 5))
  shift
  until "$@"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 1
    sleep 0.2
  done
}

check "image: a production build compiles" production
find_program || true
find_production || true
if make_charts; then
  check "image: hadolint has nothing against the Dockerfile" "$charts/hadolint" --no-color deploy/docker/Dockerfile
  unit_tests image "$root/deploy/docker" test_image
else
  skip_all "$why" "image: hadolint has nothing against the Dockerfile" "image: Dockerfile and features"
fi
check "image: it is built and runs as nobody on a file system that it cannot write" built
check "image: a worker in it stores events and ends when it is told" works
[ "$failures" = 0 ]
