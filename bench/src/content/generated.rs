//! Content that follows from a number.

use bytes::Bytes;

/// The length of each tenant's configuration.
pub(crate) const TENANT_BYTES: usize = 1024;

/// The configuration of one tenant, as a login widget asks for it: 1 KiB of JSON.
pub(crate) fn tenant(id: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(id ^ 0x7465_6e61_6e74);
    let color = |random: &mut fastrand::Rng| format!("#{:06x}", random.u32(..0x100_0000));
    let mut text = format!(
        "{{\"tenant\":\"t{id:07}\",\"domain\":\"t{id:07}.login.example\",\"clientId\":\"{:016x}{:016x}\",\
         \"callback\":\"https://app{}.example/callback\",\"allowedOrigins\":[\"https://app{}.example\",\
         \"https://www{}.example\"],\"colors\":{{\"primary\":\"{}\",\"page\":\"{}\"}},\"logo\":\"/logos/{:08x}.svg\",\
         \"connections\":[",
        random.u64(..),
        random.u64(..),
        random.u16(..),
        random.u16(..),
        random.u16(..),
        color(&mut random),
        color(&mut random),
        random.u32(..),
    );
    for (at, name) in ["password", "google-oauth2", "github", "saml", "windowslive"]
        .iter()
        .enumerate()
    {
        if at == 0 || random.bool() {
            text.push_str(&format!(
                "{}{{\"name\":\"{name}\",\"enabled\":{},\"id\":\"con_{:016x}\"}}",
                if at == 0 { "" } else { "," },
                random.bool(),
                random.u64(..)
            ));
        }
    }
    text.push_str("],\"signature\":\"");
    while text.len() < TENANT_BYTES - 2 {
        text.push(char::from_digit(random.u32(..16), 16).unwrap_or('0'));
    }
    text.push_str("\"}");
    text.into()
}

/// Bytes that no coding makes smaller.
pub(crate) fn cold(number: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(number ^ 0x636f_6c64).fill(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_a_configuration_of_its_own_and_always_the_same() {
        for id in [0, 1, 255, 999_999, u64::from(u32::MAX)] {
            let bytes = tenant(id);
            assert_eq!(bytes.len(), TENANT_BYTES, "{id}");
            assert_eq!(bytes, tenant(id));
            assert_ne!(bytes, tenant(id + 1));
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
        }
    }

    #[test]
    fn cold_objects_differ() {
        assert_eq!(cold(3, 5000).len(), 5000);
        assert_ne!(cold(3, 5000), cold(4, 5000));
    }
}
