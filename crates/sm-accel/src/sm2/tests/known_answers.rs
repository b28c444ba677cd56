//! The examples of GB/T 32918.5, which are on the recommended curve. Those of parts 2 to 4 are on another.

use super::*;
use crate::sm2::backend::forced::on_each;
use crate::sm2::encrypt::encrypt_with;
use crate::sm2::exchange::{Own, Peer, Role, agree};
use crate::sm2::scalar::Scalar;

const SIGNER: &str = "3945208F 7B2144B1 3F36E38A C6D39F95 88939369 2860B51A 42FB81EF 4DF7C5B8";
const NONCE: &str = "59276E27 D506861A 16680F3A D9C02DCC EF3CC1FA 3CDBE4CE 6D54B80D EAC1BC21";

fn secret(text: &str) -> SecretKey {
    SecretKey::from_bytes(&hex32(text)).unwrap()
}

fn nonce() -> Scalar {
    Scalar::decode(&hex32(NONCE)).unwrap()
}

/// Annex A of part 5.
#[test]
fn signs_as_the_standard_does() {
    on_each(|| {
        let key = secret(SIGNER);
        let expected = "04 09F9DF31 1E5421A1 50DD7D16 1E4BC5C6 72179FAD 1833FC07 6BB08FF3 56F35020
                           CCEA490C E26775A5 2DC6EA71 8CC1AA60 0AED05FB F35E084A 6632F607 2DA9AD13";
        assert_eq!(key.public_point().to_uncompressed().to_vec(), hex(expected));
        let z = digest_id(DEFAULT_ID, key.public_point()).unwrap();
        assert_eq!(z, hex32("B2E14C5C 79C6DF5B 85F4FE7E D8DB7A26 2B9DA7E0 7CCB0EA9 F4747B8C CDA8A4F3"));
        let e = digest(&[&z[..], b"message digest"].concat());
        assert_eq!(e, hex32("F0B43E94 BA45ACCA ACE692ED 534382EB 17E6AB5A 19CE7B31 F4486FDF C0D28640"));
        let signature = key.sign_with(&e, &nonce()).unwrap();
        assert_eq!(signature.r, hex32("F5A03B06 48D2C463 0EEAC513 E1BB81A1 5944DA38 27D5B741 43AC7EAC EEE720B3"));
        assert_eq!(signature.s, hex32("B1B6AA29 DF212FD8 763182BC 0D421CA1 BB9038FD 1F7F42D4 840B69C4 85BBC1AA"));
        let public = key.public_key();
        assert!(public.verify_digest(&e, &signature));
        public.prepare();
        assert!(public.verify_digest(&e, &signature));
    });
}

/// Annex C of part 5.
#[test]
fn encrypts_as_the_standard_does() {
    on_each(|| {
        let key = secret(SIGNER);
        let ciphertext = encrypt_with(key.public_point(), b"encryption standard", &nonce()).unwrap().unwrap();
        let expected = "04 04EBFC71 8E8D1798 62043226 8E77FEB6 415E2EDE 0E073C0F 4F640ECD 2E149A73
                           E858F9D8 1E5430A5 7B36DAAB 8F950A3C 64E6EE6A 63094D99 283AFF76 7E124DF0
                           59983C18 F809E262 923C53AE C295D303 83B54E39 D609D160 AFCB1908 D0BD8766
                           21886CA9 89CA9C7D 58087307 CA93092D 651EFA";
        assert_eq!(ciphertext.to_bytes(), hex(expected));
        assert_eq!(*key.decrypt(&ciphertext).unwrap(), b"encryption standard");
    });
}

/// Annex B of part 5.
#[test]
fn agrees_on_a_key_as_the_standard_does() {
    on_each(|| {
        let a = secret("81EB26E9 41BB5AF1 6DF11649 5F906952 72AE2CD6 3D6C4AE1 678418BE 48230029");
        let b = secret("78512991 7D45A9EA 5437A593 56B82338 EAADDA6C EB199088 F14AE10D EFA229B5");
        let short_a = secret("D4DE1547 4DB74D06 491C440D 305E0124 00990F3E 390C7E87 153C12DB 2EA60BB3");
        let short_b = secret("7E071248 14B30948 9125EAED 10111316 4EBF0F34 58C5BD88 335C1F9D 596243D6");
        let z_a = digest_id(DEFAULT_ID, a.public_point()).unwrap();
        let z_b = digest_id(DEFAULT_ID, b.public_point()).unwrap();
        let own = Own { key: &a, ephemeral: &short_a, z: &z_a };
        let peer = Peer { key: b.public_point(), ephemeral: short_b.public_point(), z: &z_b };
        let at_a = agree(Role::Initiator, &own, &peer).unwrap();
        let own = Own { key: &b, ephemeral: &short_b, z: &z_b };
        let peer = Peer { key: a.public_point(), ephemeral: short_a.public_point(), z: &z_a };
        let at_b = agree(Role::Responder, &own, &peer).unwrap();
        for agreed in [at_a, at_b] {
            assert_eq!(*agreed.key(16), hex("6C893473 54DE2484 C60B4AB1 FDE4C6E5"));
            let s1 = hex32("D3A0FE15 DEE185CE AE907A6B 595CC32A 266ED7B3 367E9983 A896DC32 FA20F8EB");
            let s2 = hex32("18C7894B 3816DF16 CF07B05C 5EC0BEF5 D655D58F 779CC1B4 00A4F388 4644DB88");
            assert_eq!((agreed.responder_confirmation(), agreed.initiator_confirmation()), (s1, s2));
        }
    });
}

/// The signature and the ciphertext of annexes A and C in the ASN.1 of GM/T 0009, 7.2 and 7.3: a number that begins with a set bit has a
/// zero byte before it, and the ciphertext's parts come in the order C1, C3, C2.
#[test]
fn encodes_the_examples_as_gm_t_0009_does() {
    let key = secret(SIGNER);
    let e = hex32("F0B43E94 BA45ACCA ACE692ED 534382EB 17E6AB5A 19CE7B31 F4486FDF C0D28640");
    let signature = hex("30 46
        02 21 00 F5A03B06 48D2C463 0EEAC513 E1BB81A1 5944DA38 27D5B741 43AC7EAC EEE720B3
        02 21 00 B1B6AA29 DF212FD8 763182BC 0D421CA1 BB9038FD 1F7F42D4 840B69C4 85BBC1AA");
    assert_eq!(key.sign_with(&e, &nonce()).unwrap().to_der(), signature);
    assert!(key.public_key().verify_digest(&e, &Signature::from_der(&signature).unwrap()));
    let ciphertext = hex("30 7C
        02 20 04EBFC71 8E8D1798 62043226 8E77FEB6 415E2EDE 0E073C0F 4F640ECD 2E149A73
        02 21 00 E858F9D8 1E5430A5 7B36DAAB 8F950A3C 64E6EE6A 63094D99 283AFF76 7E124DF0
        04 20 59983C18 F809E262 923C53AE C295D303 83B54E39 D609D160 AFCB1908 D0BD8766
        04 13 21886CA9 89CA9C7D 58087307 CA93092D 651EFA");
    let ours = encrypt_with(key.public_point(), b"encryption standard", &nonce()).unwrap().unwrap();
    assert_eq!(ours.to_der(), ciphertext);
    assert_eq!(*key.decrypt_der(&ciphertext).unwrap(), b"encryption standard");
}
