//! interim
#[derive(Debug)]
pub struct DevCerts;
impl DevCerts {
    pub fn created(&self) -> bool {
        false
    }
}
pub fn ensure(_d: &std::path::Path) -> Result<DevCerts, std::io::Error> {
    Ok(DevCerts)
}
