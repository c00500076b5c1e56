// Package seal encrypts what must not be read from a disk, a backup or a store: AES-256-GCM under
// keysets of Tink (https://developers.google.com/tink), which hold several keys, so that one may
// take the place of another while what is sealed with the older can still be read.
//
// Whatever is sealed is bound to a [Place]: opened anywhere else, it is refused. Keysets are kept
// wrapped by a [Key], which lies in a file.
package seal
