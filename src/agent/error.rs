//! Kernel errors as errors of the API.

use crate::{
    kernel::{ChangeFailure, KernelError},
    wire::{ApiError, ErrorCode},
};

impl From<KernelError> for ApiError {
    fn from(error: KernelError) -> Self {
        match &error {
            KernelError::NoInterface(_) | KernelError::AlternativeName { .. } => ErrorCode::Refused.error(error),
            _ if error.is_permission() => lacks_net_admin(error),
            _ => ErrorCode::Failed.error(error),
        }
    }
}

/// A failed change. The code is [`ErrorCode::Permission`] if a permission is missing; otherwise [`ErrorCode::Broken`]
/// if the rollback of the earlier steps failed too.
impl From<ChangeFailure> for ApiError {
    fn from(failed: ChangeFailure) -> Self {
        if failed.error.is_permission() {
            return lacks_net_admin(failed);
        }
        let code = if failed.rollback.is_empty() { ErrorCode::Failed } else { ErrorCode::Broken };
        code.error(failed)
    }
}

fn lacks_net_admin(error: impl std::fmt::Display) -> ApiError {
    ErrorCode::Permission.error(format!("{error}; the agent needs CAP_NET_ADMIN"))
}
