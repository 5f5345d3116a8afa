//! The cluster under test, and a namespace per test.

use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Client, Config, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The cluster that `PGRAIL_TEST_KUBECONFIG` names.
#[derive(Clone)]
pub struct Cluster {
    /// A client with all rights.
    pub client: Client,
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
}

impl Cluster {
    /// Connects, and installs the CRDs of the types under test.
    pub async fn connect() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = std::env::var_os("PGRAIL_TEST_KUBECONFIG")
            .map(PathBuf::from)
            .expect("PGRAIL_TEST_KUBECONFIG is not set: run `make test`, or `make cluster-up` and set it");
        let read = Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.expect("a config");
        let client = Client::try_from(config).expect("a client");
        let cluster = Self { client, kubeconfig };
        cluster.install_crds().await;
        cluster
    }

    async fn install_crds(&self) {
        use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for crd in pgrail_crds::custom_resource_definitions() {
            let name = crd.name_any();
            let parameters = PatchParams::apply("pgrail-tests").force();
            api.patch(&name, &parameters, &Patch::Apply(&crd)).await.expect("the apiserver accepts the CRD");
            kube::runtime::wait::await_condition(api.clone(), &name, kube::runtime::conditions::is_crd_established())
                .await
                .expect("the CRD is established");
        }
    }

    /// A namespace of the test's own. Deleted when the test is over, unless it failed.
    pub async fn namespace(&self, prefix: &str) -> TestNamespace {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        api.create(&PostParams::default(), &namespace).await.expect("a namespace");
        TestNamespace { cluster: self.clone(), name }
    }
}

/// A namespace of one test.
pub struct TestNamespace {
    /// Where it is.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
}

impl TestNamespace {
    /// The objects of a kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    /// Applies a manifest as `kubectl apply --server-side` does.
    pub async fn apply<K>(&self, manifest: &Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.try_apply(manifest).await.unwrap_or_else(|error| panic!("not accepted: {error}\n{manifest:#}"))
    }

    /// As [`Self::apply`], for manifests that the apiserver may refuse.
    pub async fn try_apply<K>(&self, manifest: &Value) -> Result<K, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let name = manifest["metadata"]["name"].as_str().expect("metadata.name");
        let mut manifest = manifest.clone();
        manifest["apiVersion"] = K::api_version(&()).into();
        manifest["kind"] = K::kind(&()).into();
        let parameters = PatchParams {
            field_validation: Some(kube::api::ValidationDirective::Strict),
            ..PatchParams::apply("kubectl").force()
        };
        self.api::<K>().patch(name, &parameters, &Patch::Apply(&manifest)).await
    }

    /// As [`Self::apply`], for objects that the types cannot read.
    pub async fn apply_untyped<K>(&self, manifest: &Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let name = manifest["metadata"]["name"].as_str().expect("metadata.name");
        let mut manifest = manifest.clone();
        manifest["apiVersion"] = K::api_version(&()).into();
        manifest["kind"] = K::kind(&()).into();
        let parameters = PatchParams::apply("kubectl").force();
        self.untyped::<K>().patch(name, &parameters, &Patch::Apply(&manifest)).await.expect("accepted");
    }

    /// Waits for a true condition with this reason on an object that the types cannot read; answers its message.
    pub async fn wait_for_untyped<K>(&self, name: &str, kind: &str, reason: &str) -> String
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let api = self.untyped::<K>();
        crate::eventually(&format!("{name} has {kind}, reason {reason}"), async || {
            let object = api.get(name).await.expect("the object");
            let conditions = object.data["status"]["conditions"].as_array()?;
            let condition = conditions.iter().find(|it| it["type"] == kind && it["reason"] == reason)?;
            (condition["status"] == "True").then(|| condition["message"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    fn untyped<K>(&self) -> Api<kube::core::DynamicObject>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced_with(self.cluster.client.clone(), &self.name, &kube::core::ApiResource::erase::<K>(&()))
    }

    /// Sets an annotation, or takes it away.
    pub async fn annotate<K>(&self, name: &str, annotation: &str, value: Option<&str>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("an annotation");
    }

    /// Creates or replaces a Secret.
    pub async fn secret(&self, name: &str, keys: &[(&str, &str)]) {
        let keys: BTreeMap<_, _> = keys.iter().copied().collect();
        self.apply::<Secret>(&json!({"metadata": {"name": name}, "stringData": keys})).await;
    }

    /// Deletes an object, without waiting for it to be gone.
    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    /// Waits for an Event about an object. Events are written after the status that they belong to.
    pub async fn event(&self, object: &str, reason: &str, note: &str) {
        crate::eventually(&format!("an Event {reason} about {object} with {note:?}"), async || {
            let events = self.events(object).await;
            events.iter().any(|(found, text)| found == reason && text.contains(note)).then_some(())
        })
        .await;
    }

    /// Reasons and notes of the Events about an object.
    pub async fn events(&self, object: &str) -> Vec<(String, String)> {
        let events = self.api::<Event>().list(&ListParams::default()).await.expect("events");
        events
            .into_iter()
            .filter(|event| event.involved_object.name.as_deref() == Some(object))
            .map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
            .collect()
    }

    /// An object as YAML, for messages of failed tests.
    pub async fn describe<K>(&self, name: &str) -> String
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    {
        match self.api::<K>().get_opt(name).await {
            Ok(Some(mut object)) => {
                object.meta_mut().managed_fields = None;
                serde_norway::to_string(&object).unwrap_or_default()
            }
            Ok(None) => format!("{} {name} does not exist", K::kind(&())),
            Err(error) => error.to_string(),
        }
    }

    /// Begins to delete the namespace, with everything in it.
    pub async fn delete_all(&self) {
        let api: Api<Namespace> = Api::all(self.cluster.client.clone());
        api.delete(&self.name, &DeleteParams::default()).await.expect("deleted");
    }

    /// Deletes the namespace. Left out by a failed test, so that it can be looked at.
    pub async fn finish(self) {
        self.delete_all().await;
    }
}
