//! `origin-sync policy`: a bucket policy by which S3 itself refuses to overwrite what is written once.
//!
//! Blobs and manifests can only be written where there is nothing, channels only over what was read; and nobody but the
//! role named for `gc` deletes them. Parts of an upload carry no condition, so only the operations that make an object are
//! meant (`s3:ObjectCreationOperation`).

use serde_json::{Value, json};

use super::output;
use super::{Code, Failure};
use crate::release::layout;
use crate::remote;

/// For which bucket.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The bucket and a prefix in it
    #[arg(value_name = "s3://BUCKET/PREFIX")]
    to: String,
    /// Who may delete old releases; nobody, if it is not named
    #[arg(long, value_name = "ARN")]
    gc_role: Option<String>,
    /// The partition of AWS
    #[arg(long, default_value = "aws")]
    partition: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let (bucket, prefix) = remote::parse(&arguments.to).map_err(Failure::usage)?;
    let policy = policy(
        &arguments.partition,
        &bucket,
        &prefix,
        arguments.gc_role.as_deref(),
    );
    let text = serde_json::to_string_pretty(&policy).map_err(|error| Failure::failed(error.into()))?;
    output::print(&format!("{text}\n"))?;
    Ok(Code::Done)
}

fn policy(partition: &str, bucket: &str, prefix: &str, gc_role: Option<&str>) -> Value {
    let below = |place: &str| format!("arn:{partition}:s3:::{bucket}/{prefix}{place}*");
    let once = [below(layout::BLOBS), below(layout::RELEASES)];
    let channels = below(layout::CHANNELS);
    let mut delete = json!({
        "Sid": "NobodyDeletesReleases",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        "Resource": once,
    });
    if let (Some(role), Some(statement)) = (gc_role, delete.as_object_mut()) {
        statement.insert(
            "Condition".into(),
            json!({ "ArnNotEquals": { "aws:PrincipalArn": role } }),
        );
    }
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "BlobsAndReleasesAreWrittenOnce",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": once,
                "Condition": {
                    "Null": { "s3:if-none-match": "true" },
                    "Bool": { "s3:ObjectCreationOperation": "true" },
                },
            },
            {
                "Sid": "ChannelsAreWrittenOverWhatWasRead",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": channels,
                "Condition": {
                    "Null": { "s3:if-none-match": "true", "s3:if-match": "true" },
                    "Bool": { "s3:ObjectCreationOperation": "true" },
                },
            },
            {
                "Sid": "NobodyDeletesChannels",
                "Effect": "Deny",
                "Principal": "*",
                "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
                "Resource": channels,
            },
            delete,
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_is_written_once() {
        let policy = policy("aws", "widgets", "cdn/", Some("arn:aws:iam::1:role/gc"));
        let statement = &policy["Statement"][0];
        let resources = json!([
            "arn:aws:s3:::widgets/cdn/blobs/sha256/*",
            "arn:aws:s3:::widgets/cdn/releases/*"
        ]);
        assert_eq!(statement["Resource"], resources);
        assert_eq!(statement["Condition"]["Null"]["s3:if-none-match"], "true");
        assert_eq!(
            policy["Statement"][1]["Resource"],
            "arn:aws:s3:::widgets/cdn/channels/*"
        );
        assert_eq!(
            policy["Statement"][3]["Condition"]["ArnNotEquals"]["aws:PrincipalArn"],
            "arn:aws:iam::1:role/gc"
        );
    }
}
