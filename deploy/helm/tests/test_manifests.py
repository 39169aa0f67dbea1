"""What the rendered manifests say."""

import ipaddress
import json
import unittest
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from charts import CHART, Helm3, Helm4, container, engines, environment, pod, render, values, values_files

DEPLOY = Path(__file__).resolve().parents[2]
SCHEMAS = DEPLOY / "schemas"
KUBERNETES = ("1.29", "1.33", "1.37")
ADMIN = 9464


def every_render():
    for file in values_files():
        name = file.name.removesuffix("-values.yaml")
        for engine in engines():
            yield f"{name}, {engine.name}", engine.render(values(name))


def problems(manifest):
    """What an API server would refuse, with unknown fields refused too."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    own = SCHEMAS / f"{manifest['kind'].lower()}.{group}.{version}.json"
    if own.exists():
        validator = jsonschema.Draft202012Validator(json.loads(own.read_text()))
        return [error.message for error in validator.iter_errors(manifest)]
    found = []
    for kubernetes in KUBERNETES:
        try:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{kubernetes}: {error.message}")
    return found


class Schemas(unittest.TestCase):
    def test_every_manifest_of_every_ci_values_file_fits_strict_schemas(self):
        kinds = set()
        for name, manifests in every_render():
            for kind, manifest in manifests.items():
                with self.subTest(values=name, kind=kind):
                    self.assertEqual(problems(manifest), [])
                kinds.add(kind)
        expected = {"Deployment", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy", "CiliumNetworkPolicy"}
        expected |= {"ConfigMap", "PodMonitor", "PrometheusRule", "ScaledObject"}
        self.assertEqual(kinds, expected)

    def test_a_misspelt_field_would_be_noticed_in_each_kind(self):
        for _, manifests in every_render():
            for kind, manifest in manifests.items():
                with self.subTest(kind=kind):
                    body = "data" if kind == "ConfigMap" else "spec"
                    if kind == "ServiceAccount":
                        manifest["automountServiceAccountTokn"] = False
                    elif body == "data":
                        manifest["dta"] = {}
                    else:
                        manifest["spec"]["misspelt"] = 1
                    self.assertNotEqual(problems(manifest), [])


class Pod(unittest.TestCase):
    def test_a_pod_is_nobody_in_particular_and_writes_nothing(self):
        for name, manifests in every_render():
            with self.subTest(values=name):
                of_pod, of_container = pod(manifests)["securityContext"], container(manifests)["securityContext"]
                self.assertEqual((of_pod["runAsUser"], of_pod["runAsGroup"], of_pod["runAsNonRoot"]), (65532, 65532, True))
                self.assertEqual(of_pod["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertIs(of_container["allowPrivilegeEscalation"], False)
                self.assertIs(of_container["readOnlyRootFilesystem"], True)
                self.assertEqual(of_container["capabilities"], {"drop": ["ALL"]})
                self.assertNotIn("volumes", pod(manifests))

    def test_a_pod_has_no_token_of_the_cluster_and_no_variables_of_other_services(self):
        manifests = render()
        self.assertIs(pod(manifests)["automountServiceAccountToken"], False)
        self.assertIs(manifests["ServiceAccount"]["automountServiceAccountToken"], False)
        self.assertIs(pod(manifests)["enableServiceLinks"], False)

    def test_memory_is_guaranteed_and_cpu_has_no_limit(self):
        resources = container(render())["resources"]
        self.assertEqual(resources["limits"], {"memory": resources["requests"]["memory"]})
        self.assertIn("cpu", resources["requests"])

    def test_the_grace_period_follows_from_drain_timeout(self):
        cases = [(None, 35), ("500ms", 30), ("24500ms", 35), ("25s", 35), ("50s", 60), ("2m", 130), ("1h", 3610)]
        for drain, grace in cases:
            with self.subTest(drain=drain):
                given = {} if drain is None else {"settings__drain_timeout": drain}
                self.assertEqual(pod(render(**given))["terminationGracePeriodSeconds"], grace)
        self.assertEqual(pod(render(stop__marginSeconds=60))["terminationGracePeriodSeconds"], 85)
        self.assertEqual(pod(render(stop__gracePeriodSeconds=30))["terminationGracePeriodSeconds"], 30)

    def test_no_pod_waits_before_it_begins_to_stop(self):
        self.assertNotIn("lifecycle", container(render()))

    def test_probes_ask_the_admin_port(self):
        worker = container(render(admin__port=8081))
        self.assertEqual(worker["ports"], [{"name": "admin", "containerPort": 8081, "protocol": "TCP"}])
        paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        for probe, path in paths.items():
            self.assertEqual(worker[probe]["httpGet"], {"path": path, "port": "admin"})
        self.assertIn("--admin=0.0.0.0:8081", worker["args"])

    def test_workers_tell_each_other_the_address_of_their_pod(self):
        worker = container(render())
        self.assertIn("--advertise=$(POD_IP):9464", worker["args"])
        self.assertIn({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, worker["env"])
        worker = container(render(admin__ipFamily="IPv6"))
        self.assertIn("--admin=[::]:9464", worker["args"])
        self.assertIn("--advertise=[$(POD_IP)]:9464", worker["args"])

    def test_settings_reach_the_worker_as_they_were_given(self):
        for engine in engines():
            with self.subTest(engine=engine.name):
                given = environment(engine.render(values("full")))
                self.assertEqual(given["SLUICEGATE_CFG_WRITE_BUDGET_WCU"], "40000")
                self.assertEqual(given["SLUICEGATE_CFG_ACCEPT_GAP"], "false")
                self.assertEqual(given["SLUICEGATE_CFG_FILTER"], values("full")["settings"]["filter"])
                million = environment(engine.render(values("keda", settings__write_budget_wcu=12_345_678)))
                self.assertEqual(million["SLUICEGATE_CFG_WRITE_BUDGET_WCU"], "12345678")

    def test_kubernetes_replaces_nothing_in_a_setting(self):
        key = environment(render(name="full"))["SLUICEGATE_CFG_AGGREGATE_KEY"]
        self.assertEqual(key, "$$(US)-{/carrier}-{/month}")

    def test_every_setting_given_is_in_the_environment(self):
        for name, manifests in every_render():
            with self.subTest(values=name):
                given = values(name.split(",")[0]).get("settings", {"log_format": "json"})
                set_here = {key for key in environment(manifests) if key.startswith("SLUICEGATE_CFG_")}
                set_here -= {"SLUICEGATE_CFG_ADMIN_TOKEN"}
                self.assertEqual(set_here, {"SLUICEGATE_CFG_" + key.upper() for key in given} | {"SLUICEGATE_CFG_LOG_FORMAT"})

    def test_a_token_comes_from_a_secret_and_workers_and_prometheus_have_the_same(self):
        manifests = render(name="full")
        secret = {"name": "flights-admin", "key": "token"}
        token = {"name": "SLUICEGATE_CFG_ADMIN_TOKEN", "valueFrom": {"secretKeyRef": secret}}
        self.assertIn(token, container(manifests)["env"])
        (endpoint,) = manifests["PodMonitor"]["spec"]["podMetricsEndpoints"]
        self.assertEqual(endpoint["authorization"], {"type": "Bearer", "credentials": secret})
        self.assertNotIn("authorization", render(name="keda")["PodMonitor"]["spec"]["podMetricsEndpoints"][0])

    def test_an_image_is_pinned_by_its_digest_if_one_is_given(self):
        self.assertEqual(container(render())["image"], "registry.example/sluicegate:0.1.0")
        self.assertEqual(container(render(name="full"))["image"], "registry.example/sluicegate@sha256:" + 64 * "0")

    def test_a_new_version_of_the_chart_alone_restarts_no_pod(self):
        labels = render()["Deployment"]["spec"]["template"]["metadata"]["labels"]
        self.assertNotIn("helm.sh/chart", labels)

    def test_pods_are_spread_over_zones_and_nodes_by_rollout(self):
        spread = pod(render())["topologySpreadConstraints"]
        keys = {constraint["topologyKey"] for constraint in spread}
        self.assertEqual(keys, {"topology.kubernetes.io/zone", "kubernetes.io/hostname"})
        for constraint in spread:
            self.assertEqual(constraint["matchLabelKeys"], ["pod-template-hash"])
            self.assertEqual(constraint["whenUnsatisfiable"], "ScheduleAnyway")
        (only,) = pod(render(name="full"))["topologySpreadConstraints"]
        self.assertEqual(only["whenUnsatisfiable"], "DoNotSchedule")
        none = {"topologySpread__zone": "Off", "topologySpread__hostname": "Off"}
        self.assertNotIn("topologySpreadConstraints", pod(render(**none)))


class Fleet(unittest.TestCase):
    def test_everything_selects_the_pods_of_this_release_and_no_others(self):
        for name, manifests in every_render():
            with self.subTest(values=name):
                selector = manifests["Deployment"]["spec"]["selector"]["matchLabels"]
                labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
                self.assertEqual(set(selector), {"app.kubernetes.io/name", "app.kubernetes.io/instance"})
                self.assertLessEqual(selector.items(), labels.items())
                for constraint in pod(manifests).get("topologySpreadConstraints", []):
                    self.assertEqual(constraint["labelSelector"]["matchLabels"], selector)
                for kind, field in SELECTORS.items():
                    if kind in manifests:
                        self.assertEqual(manifests[kind]["spec"][field]["matchLabels"], selector, kind)

    def test_one_pod_at_a_time_is_taken_from_a_fleet(self):
        budget = render()["PodDisruptionBudget"]["spec"]
        self.assertEqual((budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]), (1, "AlwaysAllow"))
        strategy = render()["Deployment"]["spec"]["strategy"]
        self.assertEqual(strategy["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 1})
        self.assertGreaterEqual(render()["Deployment"]["spec"]["minReadySeconds"], 10)

    def test_a_single_worker_does_not_hold_up_its_node(self):
        self.assertNotIn("PodDisruptionBudget", render(replicas=1))
        self.assertNotIn("PodDisruptionBudget", render(name="keda", autoscaling__minReplicas=1))
        self.assertIn("PodDisruptionBudget", render(name="keda", replicas=1))

    def test_who_scales_says_how_many(self):
        self.assertEqual(render()["Deployment"]["spec"]["replicas"], 3)
        for name in ("keda", "cilium"):
            self.assertNotIn("replicas", render(name=name)["Deployment"]["spec"])

    def test_irsa_names_its_role_at_the_service_account(self):
        account = render(name="irsa")["ServiceAccount"]["metadata"]
        role = "arn:aws-us-gov:iam::123456789012:role/sluicegate/flights-worker"
        self.assertEqual(account["annotations"], {"eks.amazonaws.com/role-arn": role})
        self.assertNotIn("annotations", render()["ServiceAccount"]["metadata"])


SELECTORS = {
    "PodDisruptionBudget": "selector",
    "NetworkPolicy": "podSelector",
    "CiliumNetworkPolicy": "endpointSelector",
    "PodMonitor": "selector",
}


def lets_through(rules, direction, peer, port, protocol="TCP"):
    """Whether a NetworkPolicy's rules let a peer through: an address, or (labels of its namespace, its own labels)."""
    return any(
        any(port == p["port"] and protocol == p["protocol"] for p in rule["ports"])
        and any(is_meant(block, peer) for block in rule[direction])
        for rule in rules
    )


def is_meant(block, peer):
    if isinstance(peer, str):
        if "ipBlock" not in block:
            return False
        return ipaddress.ip_address(peer) in ipaddress.ip_network(block["ipBlock"]["cidr"])
    if "ipBlock" in block:
        return False
    namespace, labels = peer
    here = {"kubernetes.io/metadata.name": "streams"}
    wanted = block["namespaceSelector"]["matchLabels"] if "namespaceSelector" in block else here
    if not wanted.items() <= namespace.items():
        return False
    return block.get("podSelector", {}).get("matchLabels", {}).items() <= labels.items()


def named(namespace, **labels):
    return {"kubernetes.io/metadata.name": namespace}, {key.replace("__", "/"): value for key, value in labels.items()}


WORKER = ({"kubernetes.io/metadata.name": "streams"},
          {"app.kubernetes.io/name": "sluicegate", "app.kubernetes.io/instance": "flights"})
OTHER_RELEASE = ({"kubernetes.io/metadata.name": "streams"},
                 {"app.kubernetes.io/name": "sluicegate", "app.kubernetes.io/instance": "orders"})
DNS = ({"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"})
PROMETHEUS = ({"kubernetes.io/metadata.name": "monitoring"}, {"app.kubernetes.io/name": "prometheus"})


class Network(unittest.TestCase):
    def policy(self, **changes):
        return render(**changes)["NetworkPolicy"]["spec"]

    def out(self, peer, port, protocol="TCP", **changes):
        return lets_through(self.policy(**changes)["egress"], "to", peer, port, protocol)

    def into(self, peer, port, **changes):
        return lets_through(self.policy(**changes)["ingress"], "from", peer, port)

    def test_both_directions_are_closed_but_for_what_is_named(self):
        self.assertEqual(set(self.policy()["policyTypes"]), {"Ingress", "Egress"})
        for rule in self.policy()["ingress"]:
            self.assertTrue(rule["ports"] and rule["from"])
        for rule in self.policy()["egress"]:
            self.assertTrue(rule["ports"] and rule["to"])

    def test_workers_reach_each_others_admin_port(self):
        self.assertTrue(self.into(WORKER, ADMIN))
        self.assertTrue(self.out(WORKER, ADMIN))
        self.assertTrue(self.into(WORKER, 8081, admin__port=8081))
        self.assertFalse(self.into(WORKER, ADMIN, admin__port=8081))

    def test_nobody_else_but_monitoring_reaches_a_worker(self):
        self.assertTrue(self.into(PROMETHEUS, ADMIN))
        for peer in (OTHER_RELEASE, named("default"), named("kube-system"), "10.0.0.1", "8.8.8.8"):
            self.assertFalse(self.into(peer, ADMIN), peer)
        self.assertFalse(self.into(PROMETHEUS, 443))
        narrow = {"networkPolicy__monitoring": {"namespace": "monitoring", "podLabels": {"app": "prometheus"}}}
        self.assertFalse(self.into(PROMETHEUS, ADMIN, **narrow))

    def test_the_pod_identity_agent_is_reached_and_only_where_it_gives_the_credentials(self):
        for address in ("169.254.170.23", "fd00:ec2::23"):
            self.assertTrue(self.out(address, 80), address)
            self.assertFalse(self.out(address, 80, name="irsa"), address)
            self.assertFalse(self.out(address, 80, aws__identity="none"), address)

    def test_the_credentials_of_the_node_are_not_reached(self):
        self.assertFalse(self.out("169.254.169.254", 80))
        self.assertFalse(self.out("fd00:ec2::254", 80))

    def test_aws_is_reached_by_tls_alone_and_where_it_is_said_to_be(self):
        self.assertTrue(self.out("52.94.5.1", 443))
        self.assertFalse(self.out("52.94.5.1", 80))
        self.assertFalse(self.out("52.94.5.1", 443, name="full"))
        for address in ("10.20.3.4", "198.51.100.1"):
            self.assertTrue(self.out(address, 443, name="full"), address)

    def test_names_are_resolved_by_the_cluster(self):
        for protocol in ("UDP", "TCP"):
            self.assertTrue(self.out(DNS, 53, protocol))
            self.assertFalse(self.out("8.8.8.8", 53, protocol))
            self.assertTrue(self.out("169.254.20.10", 53, protocol, name="full"))

    def test_under_cilium_the_agent_is_the_host(self):
        spec = render(name="cilium")["CiliumNetworkPolicy"]["spec"]
        host = {"toEntities": ["host"], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}
        self.assertIn(host, spec["egress"])
        without = render(name="cilium", aws__identity="none")["CiliumNetworkPolicy"]["spec"]
        self.assertNotIn(host, without["egress"])
        addresses = [cidr for rule in spec["egress"] for cidr in rule.get("toCIDR", [])]
        self.assertNotIn("169.254.170.23/32", addresses)

    def test_under_cilium_a_link_local_resolver_is_the_host(self):
        host = {
            "toEntities": ["host"],
            "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}, {"port": "53", "protocol": "TCP"}]}],
        }
        for cidrs, local in ((["169.254.20.10/32"], True), (["10.0.0.2/32", "fe80::a/128"], True), (["10.0.0.2/32"], False), ([], False)):
            for engine in engines():
                with self.subTest(engine=engine.name, cidrs=cidrs):
                    spec = engine.render(values("cilium", networkPolicy__dnsCidrs=cidrs))["CiliumNetworkPolicy"]["spec"]
                    self.assertEqual(spec["egress"].count(host), int(local))
                    # Until Cilium has seen it at the host, it is an address as any other.
                    named = [rule["toCIDR"] for rule in spec["egress"] if rule["toPorts"][0]["ports"][0]["port"] == "53" and "toCIDR" in rule]
                    self.assertEqual(named, [cidrs] if cidrs else [])

    def test_under_cilium_workers_reach_each_other_and_the_node_probes(self):
        spec = render(name="cilium")["CiliumNetworkPolicy"]["spec"]
        admin = [{"ports": [{"port": str(ADMIN), "protocol": "TCP"}]}]
        self.assertIn({"fromEndpoints": [{"matchLabels": WORKER[1]}], "toPorts": admin}, spec["ingress"])
        self.assertIn({"toEndpoints": [{"matchLabels": WORKER[1]}], "toPorts": admin}, spec["egress"])
        self.assertIn({"fromEntities": ["host"], "toPorts": admin}, spec["ingress"])
        self.assertNotIn("NetworkPolicy", render(name="cilium"))

    def test_it_can_be_left_to_somebody_else(self):
        manifests = render(networkPolicy__enabled=False)
        self.assertFalse({"NetworkPolicy", "CiliumNetworkPolicy"} & set(manifests))


class Monitoring(unittest.TestCase):
    def test_a_pod_monitor_scrapes_the_admin_port_and_names_the_fleet(self):
        spec = render(name="full")["PodMonitor"]["spec"]
        (endpoint,) = spec["podMetricsEndpoints"]
        self.assertEqual((endpoint["port"], endpoint["path"]), ("admin", "/metrics"))
        self.assertEqual(endpoint["relabelings"], [{"targetLabel": "job", "replacement": "streams/flights"}])
        self.assertGreater(spec["sampleLimit"], 0)

    def test_rules_and_dashboard_are_those_of_deploy_monitoring_to_the_byte(self):
        copies = {"rules/sluicegate.yaml": "rules.yaml", "dashboards/sluicegate.json": "dashboards/sluicegate.json"}
        for copy, original in copies.items():
            source, file = DEPLOY / "monitoring" / original, CHART / "files" / copy
            with self.subTest(file=copy):
                repair = f"cp deploy/monitoring/{original} deploy/helm/sluicegate/files/{copy}"
                self.assertEqual(source.read_bytes(), file.read_bytes(), f"they differ: {repair}")

    def test_rules_and_dashboard_reach_the_cluster_as_they_are(self):
        for engine in engines():
            with self.subTest(engine=engine.name):
                manifests = engine.render(values("full"))
                rules = yaml.safe_load((CHART / "files/rules/sluicegate.yaml").read_text())
                self.assertEqual(manifests["PrometheusRule"]["spec"], rules)
                self.assertTrue(rules["groups"])
                dashboard = manifests["ConfigMap"]["data"]["sluicegate.json"]
                self.assertEqual(json.loads(dashboard), json.loads((CHART / "files/dashboards/sluicegate.json").read_text()))
                self.assertEqual(manifests["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"], "1")

    def test_runbooks_are_linked_where_they_are_read_and_nothing_else_changes(self):
        rules = yaml.safe_load((CHART / "files/rules/sluicegate.yaml").read_text())
        urls = 0
        for group in rules["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    path = rule["annotations"]["runbook_url"]
                    rule["annotations"]["runbook_url"] = f"https://git.example/sluicegate/blob/main/{path}"
                    urls += 1
        self.assertGreater(urls, 10)
        for base in ("https://git.example/sluicegate/blob/main", "https://git.example/sluicegate/blob/main/"):
            for engine in engines():
                with self.subTest(engine=engine.name, base=base):
                    manifests = engine.render(values("full", prometheusRule__runbookBaseUrl=base))
                    self.assertEqual(manifests["PrometheusRule"]["spec"], rules)
                    self.assertEqual(problems(manifests["PrometheusRule"]), [])

    def test_without_their_crd_monitors_are_left_out_and_the_notes_say_so(self):
        files = Helm4().files(values())
        self.assertFalse({"PodMonitor", "PrometheusRule"} & set(Helm4().render(values())))
        (notes,) = [text for name, text in files.items() if name.endswith("NOTES.txt")]
        self.assertIn("WARNING: no PodMonitor was made", notes)
        self.assertIn("WARNING: no PrometheusRule was made", notes)
        (notes,) = [text for name, text in Helm4().files(values("full")).items() if name.endswith("NOTES.txt")]
        self.assertNotIn("WARNING", notes)

    def test_with_their_crd_monitors_are_made(self):
        if len(engines()) < 2:
            self.skipTest("there is no Helm 3, and Helm 4 cannot be told of CRDs here")
        self.assertLessEqual({"PodMonitor", "PrometheusRule"}, set(Helm3().render(values())))
