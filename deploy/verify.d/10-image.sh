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
  builder=${BUILDER_IMAGE:-$(pinned BUILDER_IMAGE)}
  runtime=${RUNTIME_IMAGE:-$(pinned RUNTIME_IMAGE)}
  local base
  for base in "$builder" "$runtime"; do
    [ "$base" = scratch ] || "${podman[@]}" image exists "$base" || timeout 300 "${podman[@]}" pull --quiet "$base" || {
      echo "$base cannot be pulled"
      return 3
    }
  done
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
[ "$failures" = 0 ]
