//! The token controller of kube-controller-manager: a Secret of type `kubernetes.io/service-account-token` gets a token of its
//! service account, where that is there. (The real one's tokens do not expire; these last an hour.)

use super::{Hand, Kind, NAMESPACE, Stop};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

/// Fills the Secrets of MTC's namespace that have no token yet.
pub async fn round(hand: &Hand) -> Result<(), Stop> {
    let secrets = hand.list(Kind::SECRET).await?;
    let own = secrets.into_iter().filter(|s| s.metadata.namespace.as_deref() == Some(NAMESPACE));
    for secret in
        own.filter(|s| s.data["type"] == "kubernetes.io/service-account-token" && s.data["data"]["token"].is_null())
    {
        let annotations = secret.metadata.annotations.clone().unwrap_or_default();
        let Some(account) = annotations.get("kubernetes.io/service-account.name") else { continue };
        let accounts = Api::<ServiceAccount>::namespaced(hand.client.clone(), NAMESPACE);
        if accounts.get_opt(account).await?.is_none() {
            continue;
        }
        let spec = TokenRequestSpec { audiences: vec![], expiration_seconds: Some(3600), bound_object_ref: None };
        let request = TokenRequest { spec, ..Default::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        let token = answer.status.map(|s| s.token).unwrap_or_default();
        hand.before_write()?;
        let patch = Patch::Merge(json!({"stringData": {"token": token}}));
        let api = Kind::SECRET.within(&hand.client, NAMESPACE);
        api.patch(&secret.metadata.name.unwrap_or_default(), &PatchParams::default(), &patch).await?;
    }
    Ok(())
}
