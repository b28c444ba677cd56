//! A block of addresses, such as `10.0.0.0/8` or `2001:db8::/32`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::tree::Value;
use super::value::{FromValue, Problem};

/// An address block in the notation of RFC 4632 and RFC 4291 section 2.3; a bare address is a block of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// The addresses by which a machine speaks to itself.
    pub fn loopback() -> Vec<Cidr> {
        vec![
            Cidr { network: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix_len: 8 },
            Cidr { network: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_len: 128 },
        ]
    }

    /// True when the address lies in the block. An IPv4 address mapped into IPv6 (`::ffff:10.0.0.1`), which is how a
    /// dual-stack socket shows IPv4 peers, is taken as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        mask(address.to_canonical(), self.prefix_len) == Some(self.network)
            && address.to_canonical().is_ipv4() == self.network.is_ipv4()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

/// The network an address belongs to; `None` when the prefix is longer than the address.
fn mask(address: IpAddr, prefix_len: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let host_len = 32u32.checked_sub(u32::from(prefix_len))?;
            let mask = u32::MAX.checked_shl(host_len).unwrap_or(0);
            Some(IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask)))
        }
        IpAddr::V6(address) => {
            let host_len = 128u32.checked_sub(u32::from(prefix_len))?;
            let mask = u128::MAX.checked_shl(host_len).unwrap_or(0);
            Some(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask)))
        }
    }
}

impl FromValue for Cidr {
    fn from_value(value: &Value) -> Result<Cidr, Problem> {
        const EXAMPLE: &str = "write blocks like \"10.0.0.0/8\" or \"2001:db8::/32\", or single addresses";
        let text = String::from_value(value).map_err(|problem| problem.suggest(EXAMPLE))?;
        let refused = || Problem::new(format!("`{text}` is not an address block")).suggest(EXAMPLE);
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, prefix_len)) => (address, Some(prefix_len)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let prefix_len = match prefix_len {
            Some(digits) => digits.parse().map_err(|_| refused())?,
            None if address.is_ipv4() => 32,
            None => 128,
        };
        let network = mask(address, prefix_len).ok_or_else(refused)?;
        if network != address {
            let problem = Problem::new(format!("`{text}` has address bits beyond its prefix"));
            return Err(problem.suggest(format!("did you mean `{network}/{prefix_len}`?")));
        }
        Ok(Cidr { network, prefix_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Cidr, String> {
        Cidr::from_value(&Value::String(text.to_owned().into())).map_err(|problem| problem.reason)
    }

    #[test]
    fn a_block_contains_its_addresses_and_no_others() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("::/0", "::1", "10.0.0.1"),
        ] {
            let block = parse(block).unwrap();
            assert!(block.contains(inside.parse().unwrap()), "{block} {inside}");
            assert!(!block.contains(outside.parse().unwrap()), "{block} {outside}");
        }
    }

    #[test]
    fn a_block_with_host_bits_or_a_bad_prefix_is_refused() {
        for text in ["10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/x", "example.com", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
