//! The refusal of everything that the embedded store does not offer.

use tonic::Status;

/// The status with which every other request is answered.
pub(super) fn not_offered(what: &str) -> Status {
    Status::unimplemented(format!(
        "baton's embedded store does not offer {what}: it has get, put, del, txn, compaction, watch, lease, member \
         list and endpoint status; run a real etcd for the rest"
    ))
}
