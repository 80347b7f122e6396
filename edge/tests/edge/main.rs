//! Scenarios: the parts together, against buckets and peers that misbehave on demand.

mod origin_s3;
