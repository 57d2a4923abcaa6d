"""An API server of Kubernetes as far as the injector's tests need one: it keeps objects with their
resourceVersion, and has webhooks look at new pods the way the real one does, by TLS that only the caBundle
vouches for. Real kubectl can create pods in it.

Refuses what the real one refuses of these objects: unknown tokens, names that exist, versions that are over, Secrets of
another type, bundles that are no certificates, conditions that are no CEL, reviews with another uid. It neither defaults nor
validates pods, and knows no selectors of webhooks and no watches. Started by tests/it/support/cluster.rs, in a folder of its own:

    api_server.py FOLDER PORT

FOLDER holds server.pem, server.key and token, and may hold `forbidden` (lines "VERB RESOURCE") and `together` ("get
RESOURCE COUNT": so many have seen the object before one is answered, once; each adds a line to `waiting`). It gets
`state.json`, from which another start goes on, and `webhooks.log`, a line of JSON for each call of a webhook.
"""

import base64
import copy
import http.client
import http.server
import json
import os
import re
import socket
import ssl
import sys
import threading
import uuid

import jsonpatch

import conditions

FOLDER, PORT = sys.argv[1], int(sys.argv[2])
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?$"
)
# What kubectl and the injector ask for: kind and whether it is in a namespace.
RESOURCES = {
    ("", "pods"): ("Pod", True),
    ("", "secrets"): ("Secret", True),
    ("", "endpoints"): ("Endpoints", True),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): (
        "MutatingWebhookConfiguration",
        False,
    ),
}
VERBS = ["create", "delete", "get", "list", "update"]


def in_folder(name):
    return os.path.join(FOLDER, name)


def lines(name):
    try:
        with open(in_folder(name), encoding="utf-8") as file:
            return [line.split() for line in file if line.strip()]
    except FileNotFoundError:
        return []


class Refused(Exception):
    """An answer that is a Status."""

    def __init__(self, code, reason, message):
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Store:
    """All objects by their path."""

    def __init__(self):
        self.lock = threading.Lock()
        self.version, self.objects = 0, {}
        if os.path.exists(in_folder("state.json")):
            with open(in_folder("state.json"), encoding="utf-8") as file:
                self.version, self.objects = json.load(file)

    def put(self, path, value):
        self.version += 1
        value["metadata"]["resourceVersion"] = str(self.version)
        value["metadata"].setdefault("uid", str(uuid.uuid4()))
        self.objects[path] = copy.deepcopy(value)
        self.save()
        return value

    def save(self):
        with open(in_folder("state.new"), "w", encoding="utf-8") as file:
            json.dump([self.version, self.objects], file)
        os.replace(in_folder("state.new"), in_folder("state.json"))

    def read(self, path):
        with self.lock:
            if path not in self.objects:
                raise Refused(404, "NotFound", f"{path} not found")
            return copy.deepcopy(self.objects[path])

    def create(self, path, value):
        with self.lock:
            if path in self.objects:
                raise Refused(409, "AlreadyExists", f"{path} already exists")
            check(value, None)
            return self.put(path, value)

    def replace(self, path, value):
        with self.lock:
            if path not in self.objects:
                raise Refused(404, "NotFound", f"{path} not found")
            old = self.objects[path]
            version = value["metadata"].get("resourceVersion")
            if version and version != old["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
            check(value, old)
            value["metadata"]["uid"] = old["metadata"]["uid"]
            return self.put(path, value)

    def delete(self, path):
        with self.lock:
            if self.objects.pop(path, None) is None:
                raise Refused(404, "NotFound", f"{path} not found")
            self.version += 1
            self.save()

    def within(self, prefix):
        with self.lock:
            found = [value for path, value in sorted(self.objects.items()) if path.startswith(prefix)]
            return copy.deepcopy(found)


STORE = Store()
TOGETHER, MET, TOGETHER_LOCK = {}, set(), threading.Lock()


def invalid(message):
    return Refused(422, "Invalid", message)


def check(value, old):
    if value["kind"] == "Secret":
        if value.get("type") == "kubernetes.io/tls":
            for item in ("tls.crt", "tls.key"):
                if item not in (value.get("data") or {}):
                    raise invalid(f"data[{item}]: Required value")
        if old and old.get("type") != value.get("type"):
            raise invalid("type: Invalid value: field is immutable")
        for item, text in (value.get("data") or {}).items():
            base64.b64decode(text, validate=True)
    if value["kind"] == "MutatingWebhookConfiguration":
        for hook in value.get("webhooks", []):
            for condition in hook.get("matchConditions", []):
                try:
                    conditions.condition(condition["expression"])
                except conditions.Wrong as wrong:
                    raise invalid(f"webhooks[].matchConditions[].expression: {wrong}") from wrong
            bundle = hook["clientConfig"].get("caBundle")
            if bundle:
                try:
                    trusting(bundle)
                except (ssl.SSLError, ValueError) as error:
                    raise invalid(f"webhooks[].clientConfig.caBundle: {error}") from error


def trusting(bundle):
    """TLS of a client that trusts these CAs and nothing else."""
    pem = base64.b64decode(bundle, validate=True).decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    return context


def look(hook, pod, namespace, dry_run):
    """Has a webhook look at a pod, if it wants to; returns what it made of it, and its warnings."""
    uid = str(uuid.uuid4())
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    resource = {"group": "", "version": "v1", "resource": "pods"}
    request = {
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {"username": "kubernetes-admin", "groups": ["system:authenticated"]},
        "object": pod,
        "oldObject": None,
        "dryRun": dry_run,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    if "name" in pod["metadata"]:
        request["name"] = pod["metadata"]["name"]
    # That one does not hold counts before that another fails.
    told = [conditions.said(one["expression"], request) for one in hook.get("matchConditions", [])]
    if False in told:
        return pod, []
    for error in told:
        if error is not True:
            raise ValueError(error)
    client = hook["clientConfig"]
    service = client["service"]
    endpoints = STORE.read(f"/api/v1/namespaces/{service['namespace']}/endpoints/{service['name']}")
    subset = endpoints["subsets"][0]
    address = (subset["addresses"][0]["ip"], subset["ports"][0]["port"])
    name = f"{service['name']}.{service['namespace']}.svc"
    version = hook["admissionReviewVersions"][0]
    review = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}
    context = trusting(client.get("caBundle") or "")
    context.set_alpn_protocols(["http/1.1"])
    within = hook.get("timeoutSeconds", 10)
    with socket.create_connection(address, timeout=within) as plain:
        with context.wrap_socket(plain, server_hostname=name) as secure:
            connection = http.client.HTTPConnection(name)
            connection.sock = secure
            path = f"{service.get('path', '/')}?timeout={within}s"
            headers = {"Accept": "application/json, */*", "Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(review), headers)
            answer = connection.getresponse()
            body = answer.read().decode()
            serial = secure.getpeercert()["serialNumber"]
    if answer.status != 200:
        raise ValueError(f"status {answer.status}: {body}")
    body = json.loads(body)
    if (body["kind"], body["apiVersion"]) != (review["kind"], review["apiVersion"]):
        raise ValueError(f"expected {review['kind']}, got {body}")
    response = body["response"]
    if response["uid"] != uid:
        raise ValueError(f"expected response.uid={uid}, got {response['uid']}")
    note(hook, {"allowed": response["allowed"], "serial": serial})
    if not response["allowed"]:
        raise Refused(403, "Forbidden", f"admission webhook {hook['name']} denied the request")
    warnings = [text[:256] for text in response.get("warnings", [])]
    if "patch" not in response:
        return pod, warnings
    if response.get("patchType") != "JSONPatch":
        raise ValueError("a patch needs patchType JSONPatch")
    patch = json.loads(base64.b64decode(response["patch"], validate=True))
    return jsonpatch.apply_patch(pod, patch), warnings


def note(hook, facts):
    with open(in_folder("webhooks.log"), "a", encoding="utf-8") as file:
        print(json.dumps({"webhook": hook["name"], **facts}), file=file)


def admit(pod, namespace, dry_run):
    """A new pod as the webhooks leave it."""
    warnings = []
    for configuration in STORE.within("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"):
        for hook in configuration.get("webhooks", []):
            rules = [rule for rule in hook["rules"] if "pods" in rule["resources"] and "CREATE" in rule["operations"]]
            if not rules:
                continue
            try:
                pod, said = look(hook, pod, namespace, dry_run)
                warnings += said
            except Refused as refused:
                if refused.code == 403:
                    raise
                failed(hook, refused)
            except Exception as error:  # whatever it was, the policy decides
                failed(hook, error)
    return pod, warnings


def failed(hook, error):
    note(hook, {"failed": f"{type(error).__name__}: {error}"})
    if hook.get("failurePolicy", "Fail") == "Fail":
        raise Refused(500, "InternalError", f"failed calling webhook {hook['name']}: {error}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        self.request.settimeout(30)
        self.request.do_handshake()
        super().setup()

    def log_message(self, *_):
        pass

    def answer(self, code, value, warnings=()):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for text in warnings:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            self.send_header("Warning", f'299 - "{quoted}"'.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(body)

    def serve(self):
        # Read even where it is not needed, or the next request would begin with it.
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.route(body)
        except Refused as refused:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": refused.message,
                "reason": refused.reason,
                "code": refused.code,
            }
            self.answer(refused.code, status)

    do_GET = do_POST = do_PUT = do_DELETE = serve

    def route(self, body):
        with open(in_folder("token"), encoding="utf-8") as file:
            if self.headers.get("Authorization") != f"Bearer {file.read().strip()}":
                raise Refused(401, "Unauthorized", "Unauthorized")
        path, _, query = self.path.partition("?")
        discovered = discovery(path)
        if discovered is not None:
            return self.answer(200, discovered)
        found = PATH.match(path)
        key = found and (found["group"] or "", found["resource"])
        if key not in RESOURCES:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        verb = {"GET": "get", "POST": "create", "PUT": "update", "DELETE": "delete"}[self.command]
        if [verb, found["resource"]] in lines("forbidden"):
            message = f'{found["resource"]} is forbidden: User "injector" cannot {verb} resource "{found["resource"]}"'
            raise Refused(403, "Forbidden", message)
        if verb == "get" and found["name"]:
            # What waits has seen the object as it was.
            try:
                seen = STORE.read(path)
            finally:
                wait_for_others(verb, found["resource"])
            return self.answer(200, seen)
        return self.keep(verb, found, path, query, body and json.loads(body))

    def keep(self, verb, found, path, query, value):
        if verb == "get":
            kind = RESOURCES[(found["group"] or "", found["resource"])][0]
            items = STORE.within(path + "/")
            return self.answer(200, {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}, "items": items})
        if verb == "delete":
            STORE.delete(path)
            return self.answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        if verb == "update":
            return self.answer(200, STORE.replace(path, value))
        warnings, dry_run = [], "dryRun=All" in query
        if value["kind"] == "Pod":
            value["metadata"].setdefault("namespace", found["namespace"])
            value, warnings = admit(value, found["namespace"], dry_run)
        metadata = value["metadata"]
        if not metadata.get("name"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        if dry_run:
            return self.answer(201, value, warnings)
        return self.answer(201, STORE.create(f"{path}/{metadata['name']}", value), warnings)


def wait_for_others(verb, resource):
    for line in lines("together"):
        if line[:2] != [verb, resource]:
            continue
        with TOGETHER_LOCK:
            if tuple(line) in MET:
                continue
            met = lambda line=line: MET.add(tuple(line))
            barrier = TOGETHER.setdefault(tuple(line), threading.Barrier(int(line[2]), action=met))
        with open(in_folder("waiting"), "a", encoding="utf-8") as file:
            print(*line, file=file)
        try:
            barrier.wait(20)
        except threading.BrokenBarrierError:
            pass


def discovery(path):
    groups = sorted({group for group, _ in RESOURCES if group})
    if path == "/version":
        return {"major": "1", "minor": "30", "gitVersion": "v1.30.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        entries = []
        for group in groups:
            version = {"groupVersion": f"{group}/v1", "version": "v1"}
            entries.append({"name": group, "versions": [version], "preferredVersion": version})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries}
    of = {"/api/v1": "", **{f"/apis/{group}/v1": group for group in groups}}
    if path not in of:
        return None
    group = of[path]
    resources = [
        {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": namespaced, "verbs": VERBS}
        for (in_group, name), (kind, namespaced) in RESOURCES.items()
        if in_group == group
    ]
    version = f"{group}/v1" if group else "v1"
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(in_folder("server.pem"), in_folder("server.key"))
    server = Server(("127.0.0.1", PORT), Handler)
    # The handshake is the thread's, so that nobody waits for somebody else's.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_address[1], flush=True)
    server.serve_forever()


main()
