#!/usr/bin/env bash
# Build the image and push it to the deployment's repository in ECR, in the form that SageMaker takes.
#
#   sagemaker/build_and_push.sh --name segserve --tag 0.1.0 --base nvidia/cuda:12.6.3-runtime-ubuntu22.04
#   sagemaker/build_and_push.sh --dry-run
#
# SageMaker takes one kind of manifest: Docker's own of a single image. OCI's it refuses, and an index too, which
# `docker buildx` makes for the attestations that it attaches by default: hence one platform, no provenance, no SBOM.
# Needs docker or podman, and Python with boto3; not the AWS command line.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: sagemaker/build_and_push.sh [options]

Build the image of this repository and push it to ECR, creating the repository where it is missing.

  --name NAME          deployment, and repository in ECR (default segserve)
  --tag TAG            of the image (default latest)
  --base IMAGE         base image (the Dockerfile's ARG BASE); none: the Dockerfile's own
  --build-arg K=V      another build argument; may be repeated
  --engine ENGINE      docker or podman; none: the one that is installed
  --platform PLATFORM  of the instances (default linux/amd64)
  --region REGION      of AWS; none: as the environment or the profile says
  --profile PROFILE    of the AWS configuration
  --no-build           push the image that was built before
  --dry-run            print the commands; needs neither AWS nor an engine
  --help               this text

example: sagemaker/build_and_push.sh --name segserve --tag 0.1.0 --region eu-central-1
HELP
}

fail() { echo "error: $1" >&2; exit "${2:-1}"; }

name=segserve tag=latest base='' engine='' platform=linux/amd64 build=yes dry_run=no
# Empty arrays are unbound variables to the bash 3.2 of macOS: they are expanded with ${a[@]+"${a[@]}"}.
build_args=() aws_options=()
while (($#)); do
  case $1 in
    --help|-h) usage; exit 0 ;;
    --dry-run) dry_run=yes; shift; continue ;;
    --no-build) build=no; shift; continue ;;
    --name|--tag|--base|--build-arg|--engine|--platform|--region|--profile) ;;
    *) fail "unknown option $1 (--help lists them)" 2 ;;
  esac
  (($# >= 2)) || fail "$1 needs a value" 2
  case $1 in
    --name) name=$2 ;;
    --tag) tag=$2 ;;
    --base) base=$2 ;;
    --build-arg) build_args+=(--build-arg "$2") ;;
    --engine) engine=$2 ;;
    --platform) platform=$2 ;;
    --region|--profile) aws_options+=("$1" "$2") ;;
  esac
  shift 2
done
[[ $name =~ ^[a-z][a-z0-9]*(-[a-z0-9]+)*$ ]] || fail "--name: expected lower case letters, digits and hyphens, came $name" 2
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || fail "--tag: not a tag: $tag" 2
[[ -z $engine || $engine == docker || $engine == podman ]] || fail "--engine: expected docker or podman, came $engine" 2
[[ $platform == linux/amd64 || $platform == linux/arm64 ]] || fail "--platform: expected linux/amd64 or linux/arm64" 2
[[ -z $base ]] || build_args+=(--build-arg "BASE=$base")

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-}
if [[ -z $python ]]; then
  python=python3
  [[ -x $root/.venv/bin/python ]] && python=$root/.venv/bin/python
fi
if [[ -z $engine ]]; then
  if command -v docker >/dev/null; then engine=docker
  elif command -v podman >/dev/null || [[ $dry_run == yes ]]; then engine=podman
  else fail "neither docker nor podman is installed"; fi
fi
[[ $dry_run == yes ]] || command -v "$engine" >/dev/null || fail "$engine is not installed"

repository=("$python" "$here/image_repository.py" --name "$name" ${aws_options[@]+"${aws_options[@]}"})
if [[ $dry_run == yes ]]; then
  # What it prints is a comment and the calls; the address is that of the stand-in account where there is none.
  told=$("${repository[@]}" --dry-run)
  printf '%s\n' "$told"
  address=${told##*$'\n'}
else
  address=$("${repository[@]}")
fi
image=$address:$tag

run() {
  printf '+'; printf ' %q' "$@"; echo
  [[ $dry_run == yes ]] || "$@"
}

if [[ $build == yes ]]; then
  if [[ $engine == docker ]]; then
    run docker buildx build --platform "$platform" --provenance=false --sbom=false \
      --output type=docker,oci-mediatypes=false \
      ${build_args[@]+"${build_args[@]}"} --tag "$image" "$root"
  else
    # HEALTHCHECK is of Docker's image format only.
    run podman build --platform "$platform" --format docker ${build_args[@]+"${build_args[@]}"} --tag "$image" "$root"
  fi
elif [[ $dry_run == no ]]; then
  "$engine" image inspect "$image" >/dev/null 2>&1 || fail "--no-build: there is no image $image here"
fi

echo "+ $python $here/image_repository.py --name $name --password | $engine login --username AWS --password-stdin ${address%%/*}"
if [[ $dry_run == no ]]; then
  "${repository[@]}" --password | "$engine" login --username AWS --password-stdin "${address%%/*}"
fi
if [[ $engine == docker ]]; then
  run docker push "$image"
else
  run podman push --format v2s2 "$image"
fi
if [[ $dry_run == yes ]]; then
  echo "# dry run: nothing was built or pushed"
else
  echo "pushed $image. Next: python sagemaker/deploy.py --name $name --image $name:$tag"
fi
