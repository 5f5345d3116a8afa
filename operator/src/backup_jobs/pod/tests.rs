use super::*;
use crate::agent::run_name::RunName;
use crate::backup_jobs::dereference::Secrets;
use crate::backup_jobs::examples::{database, schedule};
use crate::backup_jobs::job_spec::of_schedule;
use pgrail_dump::{KNOWN_AT_MOST, Known};
use serde_json::{Value, json};

fn job(patch: Value, backup: Option<&str>) -> Value {
    let job = of_schedule(&schedule(patch), &database(), Secrets::default(), "cluster").unwrap();
    serde_json::to_value(dump_job(&job, &Installation::for_tests(), backup).unwrap()).unwrap()
}

fn containers(pod: &Value) -> Vec<Value> {
    ["initContainers", "containers"].iter().flat_map(|kind| pod[kind].as_array().cloned().unwrap_or_default()).collect()
}

/// The Pod Security Standard `restricted`, as the standard lists it.
fn assert_restricted(pod: &Value) {
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["automountServiceAccountToken"], false);
    for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
        assert!(pod.get(field).is_none_or(|it| *it == false), "{field}");
    }
    for volume in pod["volumes"].as_array().unwrap() {
        let kinds: Vec<_> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        assert!(["secret", "emptyDir", "ephemeral", "persistentVolumeClaim"].contains(&kinds[0].as_str()), "{volume}");
    }
    for container in containers(pod) {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!((&security["readOnlyRootFilesystem"], &security["runAsNonRoot"]), (&json!(true), &json!(true)));
    }
}

#[test]
fn pods_are_restricted_whatever_the_template_declares() {
    let template = json!({"podTemplate": {
        "serviceAccountName": "backup", "nodeSelector": {"disk": "fast"}, "priorityClassName": "low",
        "tolerations": [{"operator": "Exists"}], "imagePullSecrets": [{"name": "registry"}],
        "labels": {"team": "shop", "pgrail.dev/task": "prune"}, "annotations": {"note": "x"},
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
        "resources": {"limits": {"memory": "1Gi"}},
    }});
    for patch in [json!({}), template] {
        let job = job(patch, None);
        assert_restricted(&job["spec"]["template"]["spec"]);
    }
}

#[test]
fn the_template_is_applied_and_cannot_replace_our_labels() {
    let template = json!({"podTemplate": {
        "nodeSelector": {"disk": "fast"}, "labels": {"team": "shop", "pgrail.dev/task": "prune"},
        "annotations": {"note": "x"}, "securityContext": {"runAsUser": 1000},
        "resources": {"limits": {"memory": "1Gi"}},
    }});
    let pod = &job(template, None)["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"]["team"], "shop");
    assert_eq!(pod["metadata"]["labels"]["pgrail.dev/task"], "dump");
    assert_eq!(pod["metadata"]["annotations"], json!({"note": "x"}));
    assert_eq!(pod["spec"]["nodeSelector"], json!({"disk": "fast"}));
    assert_eq!(pod["spec"]["securityContext"]["runAsUser"], 1000);
    for container in containers(&pod["spec"]) {
        assert_eq!(container["resources"], json!({"limits": {"memory": "1Gi"}}));
    }
}

#[test]
fn secrets_are_files_and_only_the_dump_has_the_login() {
    let tls = json!({"connection": {"secretRef": {"name": "login"},
                     "tls": {"mode": "verify-full", "caSecretRef": {"name": "ca", "key": "root.pem"}}}});
    let pod = &job(tls, None)["spec"]["template"]["spec"];
    for container in containers(pod) {
        for variable in container["env"].as_array().into_iter().flatten() {
            assert!(variable["valueFrom"].get("secretKeyRef").is_none(), "{variable}");
        }
    }
    let mounts = |container: &Value| -> Vec<String> {
        container["volumeMounts"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(mounts(&pod["initContainers"][0]), ["drill", "scratch", "tmp"]);
    assert_eq!(mounts(&pod["initContainers"][1]), ["connection", "ca", "store", "work", "tmp"]);
    assert_eq!(mounts(&pod["containers"][0]), ["store", "drill", "work", "tmp"]);
    assert_eq!(pod["initContainers"][0]["restartPolicy"], "Always");
    let ca = pod["volumes"].as_array().unwrap().iter().find(|it| it["name"] == "ca").unwrap();
    assert_eq!(ca["secret"]["items"], json!([{"key": "root.pem", "path": "ca.crt"}]));
}

fn drill_pod(patch: Value, image: Option<&str>) -> Value {
    let job = of_schedule(&schedule(patch), &database(), Secrets::default(), "cluster").unwrap();
    let drill = DrillJob {
        scratch: Scratch { size: "20Gi".into(), storage_class_name: Some("fast".into()) },
        image: image.map(str::to_owned),
        encrypted: true,
        backoff_limit: 2,
        active_deadline_seconds: Some(600),
    };
    let config = DrillConfig { backup: "b".into(), location: "l".into(), manifest_sha256: "s".into(), queries: vec![] };
    let job = drill_job(&job.destination, &drill, &Installation::for_tests(), config).unwrap();
    let job = serde_json::to_value(job).unwrap();
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 600);
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 24 * 3600, "its volume is deleted with its pod");
    job["spec"]["template"]["spec"].clone()
}

#[test]
fn a_drill_has_no_login_and_its_server_no_secret() {
    let pod = drill_pod(json!({"decryption": {"identitySecretRef": {"name": "age"}}}), None);
    assert_restricted(&pod);
    assert!(!pod["volumes"].to_string().contains("shop-pgrail"));
    let mounts = |container: &Value| -> Vec<String> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        mounts.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(mounts(&pod["initContainers"][0]), ["drill", "scratch", "tmp"]);
    assert!(pod["initContainers"][0].get("env").is_none());
    assert_eq!(mounts(&pod["containers"][0]), ["store", "identity", "drill", "work", "tmp"]);
    let volume = |name: &str| pod["volumes"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    let claim = &volume("scratch")["ephemeral"]["volumeClaimTemplate"]["spec"];
    assert_eq!(
        (&claim["storageClassName"], &claim["resources"]["requests"]["storage"]),
        (&json!("fast"), &json!("20Gi"))
    );
    assert_eq!(volume("identity")["secret"]["optional"], true);
    assert_eq!(pod["securityContext"]["fsGroup"], 65532);
}

#[test]
fn a_server_of_the_users_image_is_started_by_a_script() {
    let pod = drill_pod(json!({}), Some("postgis/postgis:18"));
    assert_restricted(&pod);
    let server = &pod["initContainers"][0];
    assert_eq!((&server["image"], &server["command"][0]), (&json!("postgis/postgis:18"), &json!("sh")));
    assert!(server.get("args").is_none());
    let script = server["command"][2].as_str().unwrap();
    assert!(
        script.contains("listen_addresses=") && script.contains(SCRATCH_DIRECTORY) && script.contains(DRILL_DIRECTORY)
    );
    assert_eq!(pod["containers"][0]["image"], "pgrail:test");
}

#[test]
fn the_private_keys_are_mounted_where_a_dump_is_decrypted() {
    let key = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    let decryption = json!({"identitySecretRef": {"name": "age"}});
    let encrypted = json!({"encryption": {"ageRecipients": [key]}, "decryption": decryption});
    let pod = &job(encrypted, None)["spec"]["template"]["spec"];
    let with_key: Vec<_> =
        containers(pod).into_iter().filter(|it| it["volumeMounts"].to_string().contains("identity")).collect();
    assert_eq!((with_key.len(), &with_key[0]["name"]), (1, &json!("verify")));
    let plain = &job(json!({"decryption": decryption}), None)["spec"]["template"]["spec"];
    assert!(!plain.to_string().contains("identity\""));
}

#[test]
fn without_a_structural_drill_there_is_no_server() {
    let pod = &job(json!({"verification": {"structure": false}}), None)["spec"]["template"]["spec"];
    assert_eq!(pod["initContainers"].as_array().unwrap().len(), 1);
    assert!(!pod["volumes"].to_string().contains("scratch"));
}

#[test]
fn a_volume_is_mounted_and_writable() {
    let storage = json!({"storage": {"url": "file:///shop", "persistentVolumeClaim": {"claimName": "dumps"}}, "verification": {"structure": false}});
    let pod = &job(storage, None)["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["fsGroup"], 65532);
    for container in containers(pod) {
        let mount = container["volumeMounts"].as_array().unwrap().iter().find(|it| it["name"] == "dumps").unwrap();
        assert_eq!((&mount["mountPath"], mount.get("readOnly")), (&json!("/dumps"), None));
    }
}

#[test]
fn configuration_errors_and_evictions_are_not_retried_or_counted() {
    let job = job(json!({"backoffLimit": 5, "activeDeadlineSeconds": 60}), None);
    let rules = &job["spec"]["podFailurePolicy"]["rules"];
    assert_eq!((&rules[0]["action"], &rules[1]["action"]), (&json!("Ignore"), &json!("FailJob")));
    assert_eq!(rules[1]["onExitCodes"], json!({"operator": "In", "values": [78]}));
    assert_eq!(job["spec"]["template"]["spec"]["restartPolicy"], "Never");
    assert_eq!((&job["spec"]["backoffLimit"], &job["spec"]["activeDeadlineSeconds"]), (&json!(5), &json!(60)));
    assert!(job["spec"].get("ttlSecondsAfterFinished").is_none());
}

#[test]
fn a_job_by_hand_names_its_backup() {
    let job = job(json!({}), Some("before-friday"));
    assert_eq!(job["metadata"]["annotations"]["pgrail.dev/backup"], "before-friday");
    assert_eq!(job["spec"]["template"]["metadata"]["annotations"]["pgrail.dev/backup"], "before-friday");
    let env = &job["spec"]["template"]["spec"]["containers"][0]["env"];
    let config: AgentConfig = serde_json::from_str(env[0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(config.dump.unwrap().name, RunName::Backup("before-friday".into()));
}

#[test]
fn a_prune_has_no_login() {
    let job = of_schedule(&schedule(json!({})), &database(), Secrets::default(), "cluster").unwrap();
    let job = prune_job(&job.destination, &Installation::for_tests(), PruneConfig::default(), None).unwrap();
    let job = serde_json::to_value(job).unwrap();
    let pod = &job["spec"]["template"]["spec"];
    assert_restricted(pod);
    assert!(!pod["volumes"].to_string().contains("shop-pgrail"));
    assert_eq!(pod["containers"][0]["args"], json!(["agent", "prune"]));
}

#[test]
fn the_largest_inventory_fits_into_a_variable() {
    let job = of_schedule(&schedule(json!({})), &database(), Secrets::default(), "cluster").unwrap();
    let known = Known(format!("20261123T021500Z-{}", "a".repeat(13)), Some(u64::MAX));
    let config = InventoryConfig { known: vec![known; KNOWN_AT_MOST], ..InventoryConfig::default() };
    let job = inventory_job(&job.destination, &Installation::for_tests(), config).unwrap();
    let job = serde_json::to_value(job).unwrap();
    let pod = &job["spec"]["template"]["spec"];
    assert_restricted(pod);
    assert!(!pod["volumes"].to_string().contains("shop-pgrail"));
    assert_eq!(pod["containers"][0]["args"], json!(["agent", "inventory"]));
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 3600);
    // The longest string that Linux passes to a process.
    let value = pod["containers"][0]["env"][0]["value"].as_str().unwrap();
    assert!(value.len() + "PGRAIL_AGENT_CONFIG=".len() < 128 * 1024 - 4096, "{}", value.len());
}
