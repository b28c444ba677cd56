//! Builds hellos field by field, so that every one of them can be made wrong.

#[derive(Debug, Clone)]
pub struct Hello {
    pub record_version: u16,
    pub client_version: u16,
    session_id: Vec<u8>,
    suites: Vec<u8>,
    compression: Vec<u8>,
    extensions: Option<Vec<(u16, Vec<u8>)>>,
    padded_to: Option<usize>,
}

impl Hello {
    pub fn tlcp() -> Self {
        Self {
            record_version: 0x0101,
            client_version: 0x0101,
            session_id: Vec::new(),
            suites: list(&[0xe051, 0xe011, 0xe053, 0xe013]),
            compression: vec![0],
            extensions: None,
            padded_to: None,
        }
    }

    pub fn tls12() -> Self {
        let hello = Self {
            record_version: 0x0301,
            client_version: 0x0303,
            suites: list(&[0xc02b, 0xc02f, 0x009c]),
            ..Self::tlcp()
        };
        hello.groups(&[0x001d, 0x0017]).signatures(&[0x0403, 0x0804]).extension(23, &[])
    }

    pub fn tls13() -> Self {
        Self::tls12().suites(&[0x1301, 0x1302]).session_id(&[9; 32]).versions(&[0x0304, 0x0303])
    }

    pub fn record_version(mut self, version: u16) -> Self {
        self.record_version = version;
        self
    }

    pub fn client_version(mut self, version: u16) -> Self {
        self.client_version = version;
        self
    }

    pub fn session_id(mut self, id: &[u8]) -> Self {
        self.session_id = id.to_vec();
        self
    }

    pub fn suites(self, suites: &[u16]) -> Self {
        self.raw_suites(&list(suites))
    }

    pub fn raw_suites(mut self, suites: &[u8]) -> Self {
        self.suites = suites.to_vec();
        self
    }

    pub fn compression(mut self, methods: &[u8]) -> Self {
        self.compression = methods.to_vec();
        self
    }

    pub fn no_extensions(mut self) -> Self {
        self.extensions = None;
        self
    }

    /// Replaces the extension if it is there, else appends it.
    pub fn extension(mut self, extension: u16, data: &[u8]) -> Self {
        let all = self.extensions.get_or_insert_default();
        match all.iter_mut().find(|(present, _)| *present == extension) {
            Some((_, old)) => *old = data.to_vec(),
            None => all.push((extension, data.to_vec())),
        }
        self
    }

    pub fn second_extension(mut self, extension: u16, data: &[u8]) -> Self {
        self.extensions.get_or_insert_default().push((extension, data.to_vec()));
        self
    }

    pub fn sni(self, name: &str) -> Self {
        self.raw_sni(&[name.as_bytes()])
    }

    pub fn raw_sni(self, names: &[&[u8]]) -> Self {
        let entries: Vec<u8> = names.iter().flat_map(|name| [vec![0], vector_u16(name)].concat()).collect();
        self.extension(0, &vector_u16(&entries))
    }

    pub fn alpn(self, names: &[&[u8]]) -> Self {
        let entries: Vec<u8> = names.iter().flat_map(|name| vector_u8(name)).collect();
        self.extension(16, &vector_u16(&entries))
    }

    pub fn groups(self, groups: &[u16]) -> Self {
        self.extension(10, &vector_u16(&list(groups)))
    }

    pub fn signatures(self, schemes: &[u16]) -> Self {
        self.extension(13, &vector_u16(&list(schemes)))
    }

    pub fn versions(self, versions: &[u16]) -> Self {
        self.extension(43, &vector_u8(&list(versions)))
    }

    pub fn key_share(self, shares: &[(u16, usize)]) -> Self {
        let entries: Vec<u8> = shares
            .iter()
            .flat_map(|(group, length)| [group.to_be_bytes().to_vec(), vector_u16(&vec![0xaa; *length])].concat())
            .collect();
        self.extension(51, &vector_u16(&entries))
    }

    /// Adds a padding extension (RFC 7685) so that the body has exactly `length` bytes.
    pub fn padded_to(mut self, length: usize) -> Self {
        self.padded_to = Some(length);
        self
    }

    /// The body alone.
    pub fn body(&self) -> Vec<u8> {
        let mut body = self.client_version.to_be_bytes().to_vec();
        body.extend(0..32u8);
        body.extend(vector_u8(&self.session_id));
        body.extend(vector_u16(&self.suites));
        body.extend(vector_u8(&self.compression));
        if let Some(extensions) = &self.extensions {
            let mut all: Vec<u8> = extensions
                .iter()
                .flat_map(|(extension, data)| [extension.to_be_bytes().to_vec(), vector_u16(data)].concat())
                .collect();
            if let Some(length) = self.padded_to {
                let padding = length - body.len() - 2 - all.len() - 4;
                all.extend([21u16.to_be_bytes().to_vec(), vector_u16(&vec![0; padding])].concat());
            }
            body.extend(vector_u16(&all));
        }
        body
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        handshake(1, &self.body())
    }

    /// The message in one record, or in as few as it needs.
    pub fn wire(&self) -> Vec<u8> {
        self.message().chunks(1 << 14).flat_map(|chunk| record(self.record_version, chunk)).collect()
    }
}

pub fn handshake(message_type: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[message_type, length[1], length[2], length[3]], body].concat()
}

pub fn record(version: u16, fragment: &[u8]) -> Vec<u8> {
    [&[22][..], &version.to_be_bytes(), &vector_u16(fragment)].concat()
}

pub fn vector_u8(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).unwrap()], data].concat()
}

pub fn vector_u16(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
}

pub fn list(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}
