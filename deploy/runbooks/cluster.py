"""Runs `kubectl` commands by the real kubectl against a stand-in for an API server that holds the chart's Deployment.

The stand-in knows what the commands of runbooks ask for and nothing else: discovery, pods and their logs, a Deployment with its
scale, replica sets, no events. Names and labels are those that the chart renders, so a selector that finds nothing is found out.
A command that only looks must answer something and change nothing; any other must change the Deployment.
"""

import copy
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.parse

import jsonpatch
from typed import wrong_effect

PODS = 3
LOOKING = ("get", "describe", "logs")
PATHS = {
    "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": "apps",
                "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
            }
        ],
    },
}


def resources(version, *kinds):
    verbs = ["get", "list", "watch", "update", "patch"]
    return {
        "kind": "APIResourceList",
        "groupVersion": version,
        "resources": [
            {"name": name, "singularName": name.rstrip("s"), "kind": kind, "namespaced": True, "verbs": verbs, "shortNames": short}
            for name, kind, short in kinds
        ],
    }


PATHS["/api/v1"] = resources("v1", ("pods", "Pod", ["po"]), ("events", "Event", ["ev"]))
PATHS["/apis/apps/v1"] = resources(
    "apps/v1", ("deployments", "Deployment", ["deploy"]), ("replicasets", "ReplicaSet", ["rs"]), ("deployments/scale", "Scale", [])
)


class Cluster:
    """A rollout that is done, of the second release; the first has no pods left."""

    def __init__(self, deployment, namespace):
        self.namespace = namespace
        self.deployment = copy.deepcopy(deployment)
        labels = self.deployment["spec"]["selector"]["matchLabels"]
        self.deployment["spec"]["replicas"] = PODS
        self.deployment["spec"]["revisionHistoryLimit"] = 10
        annotations = self.deployment["metadata"].setdefault("annotations", {})
        annotations["deployment.kubernetes.io/revision"] = "2"
        self.place(self.deployment, "apps/v1", "Deployment", self.deployment["metadata"]["name"], generation=1)
        self.deployment["status"] = {
            "observedGeneration": 1, "replicas": PODS, "updatedReplicas": PODS, "readyReplicas": PODS, "availableReplicas": PODS,
        }
        name = self.deployment["metadata"]["name"]
        template = self.deployment["spec"]["template"]
        self.replicasets = [self.replicaset(name, n, template, labels) for n in (1, 2)]
        self.pods = [self.pod(f"{name}-2-{n}", template) for n in range(PODS)]
        self.version = 0

    def place(self, thing, version, kind, name, **more):
        thing |= {"apiVersion": version, "kind": kind}
        thing.setdefault("metadata", {})
        thing["metadata"] |= {
            "name": name, "namespace": self.namespace, "uid": f"uid-{name}", "resourceVersion": "1",
            "creationTimestamp": "2026-01-31T12:00:00Z", **more,
        }
        return thing

    def replicaset(self, name, revision, template, labels):
        template = copy.deepcopy(template)
        template["metadata"]["labels"]["pod-template-hash"] = str(revision)
        template["metadata"].setdefault("annotations", {})["release"] = str(revision)
        spec = {"replicas": PODS if revision == 2 else 0, "selector": {"matchLabels": labels}, "template": template}
        owner = {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": f"uid-{name}", "controller": True,
            "blockOwnerDeletion": True,
        }
        thing = self.place({"spec": spec, "status": {}}, "apps/v1", "ReplicaSet", f"{name}-{revision}")
        thing["metadata"] |= {
            "annotations": {"deployment.kubernetes.io/revision": str(revision)}, "ownerReferences": [owner],
            "labels": template["metadata"]["labels"],
        }
        return thing

    def pod(self, name, template):
        thing = self.place({"spec": copy.deepcopy(template["spec"])}, "v1", "Pod", name)
        thing["spec"]["nodeName"] = "node-1"
        thing["metadata"]["labels"] = template["metadata"]["labels"]
        container = thing["spec"]["containers"][0]["name"]
        state = {"running": {"startedAt": "2026-01-31T12:00:00Z"}}
        thing["status"] = {
            "phase": "Running", "podIP": "10.0.0.7",
            "containerStatuses": [
                {
                    "name": container, "ready": True, "restartCount": 1, "image": "sluicegate", "imageID": "sluicegate",
                    "state": state,
                }
            ],
        }
        return thing

    def seen(self):
        return json.dumps(self.deployment, sort_keys=True)

    # ---- What is asked of an API server ----

    def get(self, path, query):
        """Of what is asked for, or None."""
        if path in PATHS:
            return PATHS[path]
        if log := re.fullmatch(rf"/api/v1/namespaces/{self.namespace}/pods/([\w-]+)/log", path):
            return f"a line of {log[1]}, {'before it died' if query.get('previous') == 'true' else 'alive'}\n"
        if path == f"{self.at('apps/v1', 'deployments')}/{self.deployment['metadata']['name']}/scale":
            return self.scale()
        for things, version, plural, kind in (
            (self.pods, "v1", "pods", "Pod"),
            ([], "v1", "events", "Event"),
            ([self.deployment], "apps/v1", "deployments", "Deployment"),
            (self.replicasets, "apps/v1", "replicasets", "ReplicaSet"),
        ):
            at = self.at(version, plural)
            if path == at:
                return {
                    "kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"},
                    "items": [thing for thing in things if selected(thing, query)],
                }
            for thing in things:
                if path == f"{at}/{thing['metadata']['name']}":
                    return thing
        return None

    def at(self, version, plural):
        return f"/{'api' if version == 'v1' else 'apis'}/{version}/namespaces/{self.namespace}/{plural}"

    def scale(self):
        labels = self.deployment["spec"]["selector"]["matchLabels"]
        thing = {
            "spec": {"replicas": self.deployment["spec"]["replicas"]},
            "status": {"replicas": PODS, "selector": ",".join(f"{key}={value}" for key, value in labels.items())},
        }
        return self.place(thing, "autoscaling/v1", "Scale", self.deployment["metadata"]["name"])

    def patch(self, path, kind, change):
        found = self.get(path, {})
        if found is None:
            return None
        if path.endswith("/scale"):
            self.deployment["spec"]["replicas"] = change["spec"]["replicas"]
            return self.scale()
        assert found is self.deployment and "json-patch" in kind, (path, kind)
        self.deployment = jsonpatch.apply_patch(self.deployment, change)
        return self.deployment


def selected(thing, query):
    about = {f"metadata.{key}": value for key, value in thing["metadata"].items() if isinstance(value, str)}
    for name, values in (("labelSelector", thing["metadata"].get("labels", {})), ("fieldSelector", about)):
        for part in filter(None, query.get(name, "").split(",")):
            key, equals, value = part.partition("=")
            assert equals, part
            if values.get(key) != value.removeprefix("="):
                return False
    return True


def handler(cluster):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            found = cluster.get(url.path, query)
            if found is not None and query.get("watch") in ("true", "1"):
                # Nothing moves: what is there, and the end.
                found = "".join(json.dumps({"type": "ADDED", "object": each}) + "\n" for each in found["items"])
            self.answer(found)

        def do_PATCH(self):
            self.answer(cluster.patch(urllib.parse.urlsplit(self.path).path, self.headers["Content-Type"], self.body()))

        def do_PUT(self):
            self.answer(cluster.patch(urllib.parse.urlsplit(self.path).path, "application/merge-patch+json", self.body()))

        def body(self):
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(self, found):
            status = 200 if found is not None else 404
            if found is None:
                found = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": self.path}
            text = found if isinstance(found, str) else json.dumps(found)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if self.path.split("?")[0].endswith("/log") else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    return Handler


class Kubectl:
    """Runs commands, each in a cluster of its own."""

    def __init__(self, folder, deployment, namespace):
        self.program = shutil.which("kubectl")
        self.folder, self.deployment, self.namespace = folder, deployment, namespace

    def wrong(self, line):
        """Runs a command as a shell would; says what is wrong, or None."""
        cluster = Cluster(self.deployment, self.namespace)
        before = cluster.seen()
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(cluster)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                done = self.run(line, f"http://127.0.0.1:{server.server_port}")
            finally:
                server.shutdown()
        if done.returncode != 0:
            return f"status {done.returncode}\n{done.stdout}{done.stderr}"
        looks = line.split()[3] in LOOKING or line.split()[3:5] == ["rollout", "status"]
        return wrong_effect(looks, cluster.seen() != before, done.stdout)

    def run(self, line, server):
        config = self.folder / "kubeconfig"
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "here",
                    "clusters": [{"name": "here", "cluster": {"server": server}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here"}}],
                }
            )
        )
        env = {
            "PATH": f"{os.path.dirname(self.program)}:/usr/bin:/bin", "HOME": str(self.folder), "KUBECONFIG": str(config),
            "NAMESPACE": self.namespace, "DEPLOYMENT": self.deployment["metadata"]["name"],
        }
        return subprocess.run(["bash", "-euc", line], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


# Mistakes that have to be found.
WITHOUT_EFFECT = [
    "kubectl -n $NAMESPACE get pods -l app.kubernetes.io/name=sluice-gate",
    "kubectl -n $NAMESPACE logs -l app.kubernetes.io/name=sluice-gate --tail=50",
    "kubectl -n $NAMESPACE logs -l app.kubernetes.io/name=sluicegate --tail=50 --prefixed",
    "kubectl -n ${NAMESPACE}s get pods -l app.kubernetes.io/name=sluicegate",
    "kubectl -n $NAMESPACE scale deployment/$DEPLOYMENT --replicas=3",
    "kubectl -n $NAMESPACE scale deployment/${DEPLOYMENT}s --replicas=8",
    "kubectl -n $NAMESPACE rollout undo deployment/$DEPLOYMENT --to-revision=7",
    "kubectl -n $NAMESPACE rollout status deployment/${DEPLOYMENT}s --timeout=10s",
]
