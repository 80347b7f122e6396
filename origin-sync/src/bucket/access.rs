//! Who may do what: the owner of the key everything, others nothing, or reading objects if that was allowed.

use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};

/// The rule, as `s3s` asks it once the signature was verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) anonymous_read: bool,
    pub(super) list_allowed: bool,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name();
        let is_list = matches!(operation, "ListObjects" | "ListObjectsV2");
        if is_list && !self.list_allowed {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        let is_read = matches!(operation, "GetObject" | "HeadObject");
        if cx.credentials().is_some() || (self.anonymous_read && is_read) {
            return Ok(());
        }
        Err(s3_error!(AccessDenied, "Access Denied"))
    }
}
