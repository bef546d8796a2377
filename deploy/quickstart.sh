#!/usr/bin/env bash
# From a fresh Debian 12 to a streamed answer: installs what is missing, builds, fetches
# SmolLM2-135M-Instruct, starts the server on 127.0.0.1, asks the bundled prompt with its six
# paraphrases, shows which groups see which, stops. For a person's first minutes; never for production.
set -Eeuo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/quickstart.sh [--model PATH] [--keep] [--port N] | --stop
  --model PATH  a Hugging Face folder or a GGUF file, instead of SmolLM2-135M-Instruct
  --keep        leave the server running, and say how to talk to it and how to stop it
  --port N      the server's port; 0 picks a free one, which is the default; with --keep the default
                is 50051, where the clients look for a server, as long as it is free
  --stop        only stop the servers that --keep has left running
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/build/release/bin
work=$root/build/quickstart
prompt=$root/deploy/prompts/six_paraphrases.json
start_timeout_s=300
clients_port=50051
server_pid=

say() { printf 'quickstart: %s\n' "$*" >&2; }
die() { trap - ERR; say "error: $*"; exit 1; }
trap 'die "line $LINENO failed: $BASH_COMMAND"' ERR

model='' keep='' stop='' port=
while (($#)); do
  case $1 in
    --model) model=${2:?--model needs a path}; shift ;;
    --keep) keep=yes ;;
    --port) port=${2:?--port needs a number}; shift ;;
    --stop) stop=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "$1: not an option" ;;
  esac
  shift
done
[[ -z $port || ($port =~ ^[0-9]+$ && $port -le 65535) ]] || die "--port $port: allowed are 0 to 65535"
[[ -z $model || -e $model ]] || die "--model $model: no such file or folder"
[[ -z $model ]] || model=$(realpath "$model")
cd "$root"

# A kept server is known by a file $work/kept.PID. After a restart of the machine, that number may be
# of another program.
stop_kept_servers() {
  local file pid stopped=0
  for file in "$work"/kept.*; do
    [[ -e $file ]] || continue
    pid=${file##*.}
    if [[ $(readlink "/proc/$pid/exe" || true) == "$bin/structattn-server"* ]]; then
      say "stopping the server on $(cat "$file")"
      kill -TERM "$pid"
      stopped=$((stopped + 1))
      while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    fi
    rm -f "$file"
  done
  ((stopped)) || say "no server of --keep is running"
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Sets `port` where --port does not.
choose_port() {
  [[ -z $port ]] || return 0
  port=0
  [[ $keep ]] || return 0
  if is_free "$clients_port"; then
    port=$clients_port
  else
    say "port $clients_port is taken: picking a free one"
  fi
}

stop_server() {
  [[ -n $server_pid ]] || return 0
  kill -TERM "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Configures once: the build itself notices when CMake's files change.
build() {
  local log=$work/build.log
  say "building the server and the client (log: $log)"
  {
    [[ -e build/release/build.ninja ]] || cmake --preset release
    cmake --build --preset release --target structattn-server structattn
  } >"$log" 2>&1 || { tail -n 40 "$log" >&2; die "the build failed"; }
}

# Sets `address`. The server prints one line on standard output, once it answers.
start_server() {
  local name
  # Names of models: at most 64 letters, digits, dots, dashes and underscores.
  name=$(basename "$model" .gguf | tr -c "A-Za-z0-9._\n-" - | cut -c1-64)
  say "starting the server with $name (log: $work/server.log)"
  : >"$work/server.out"
  nohup "$bin/structattn-server" --model "$name=$model" --listen "127.0.0.1:$port" \
    >"$work/server.out" 2>"$work/server.log" </dev/null &
  server_pid=$!
  local deadline=$((SECONDS + start_timeout_s))
  until grep -q '^listening on ' "$work/server.out"; do
    kill -0 "$server_pid" 2>/dev/null ||
      { tail -n 5 "$work/server.log" >&2; server_pid=''; die "the server did not start"; }
    ((SECONDS < deadline)) || die "the server did not start within $start_timeout_s s"
    sleep 0.05
  done
  address=$(sed -n 's/^listening on //p' "$work/server.out")
}

if [[ $stop ]]; then
  stop_kept_servers
  exit
fi
# Lets clones in different folders share what ccache holds.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
"$root/deploy/setup.sh"
mkdir -p "$work"
build
if [[ -z $model ]]; then
  cache=${STRUCTATTN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/structattn}
  "$root/tests/models/fetch.sh" "$cache/models" --only smollm2.gguf
  model=$cache/models/smollm2.gguf
fi
choose_port
start_server

say "asking six paraphrases of one question; each sees itself and the first"
"$bin/structattn" --server "$address" generate --prompt "$prompt" --max-tokens 24 --stop $'\n\n'
printf '\n'
say "what each token of that prompt sees"
"$bin/structattn" --server "$address" inspect --prompt "$prompt"

if [[ $keep ]]; then
  printf '%s\n' "$address" >"$work/kept.$server_pid"
  server_pid=
  say "the server keeps running on $address. Talk to it:"
  say "  export PATH=$bin:\$PATH"
  [[ $address == *:"$clients_port" ]] || say "  export STRUCTATTN_SERVER=$address"
  say "  structattn generate --prompt $prompt"
  say "stop it:"
  say "  deploy/quickstart.sh --stop"
fi
