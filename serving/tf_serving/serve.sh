#!/bin/sh
# Starts TensorFlow Serving with Docker Compose, or says what is missing and what to run instead.
# serve.sh MODELS_DIR [gpu]; DOCKER names another docker command.
set -eu

name=complete_journey
configs=$(dirname "$0")
models=${1:?the folder that holds $name/}
docker=${DOCKER:-docker}

fail() {
  echo "serve: $1" >&2
  exit 1
}

fail_without_docker() {
  fail "$1
Without Docker, for development only, the embedded server answers the same requests:
  python -m serving.local --model_base_path \"$models/$name\" --model_name $name"
}

ls "$models/$name"/[0-9]*/saved_model.pb >/dev/null 2>&1 ||
  fail "An exported version must be there. Received: no $models/$name/<version>/saved_model.pb. Run \`make demo\`, or name another folder: make serve MODELS=DIR."
command -v "$docker" >/dev/null ||
  fail_without_docker "Docker must be installed. Received: no command \`$docker\`. Install it: https://docs.docker.com/engine/install/"
"$docker" compose version >/dev/null 2>&1 ||
  fail_without_docker "Docker's Compose plugin must be installed. Received: \`$docker compose version\` fails. Install docker-compose-plugin."
"$docker" info >/dev/null 2>&1 ||
  fail_without_docker "Docker's daemon must run, and you must be allowed to use it. Received: \`$docker info\` fails. Start it, or join the group docker."

TF_LIFT_MODELS=$(cd "$models" && pwd)
export TF_LIFT_MODELS
set -- compose --file "$configs/docker-compose.yml" ${2:+--file "$configs/docker-compose.$2.yml"}
"$docker" "$@" up --detach --wait ||
  fail "The server must become healthy. Received: what stands above. Read its log: TF_LIFT_MODELS=\"$TF_LIFT_MODELS\" $docker $* logs"
echo "TensorFlow Serving answers at localhost:8500 (gRPC) and localhost:8501 (REST, metrics)."
echo "Ask:  python -m serving.client status --model_name $name"
echo "Stop: TF_LIFT_MODELS=\"$TF_LIFT_MODELS\" $docker $* down"
