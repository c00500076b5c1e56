package main

import (
	"context"
	"os"
	"path/filepath"
)

// theToken is what admins and edges of a measurement present.
type theToken struct{}

const tokenText = "of-the-measurement"

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (theToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + tokenText}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials]. Measurements go over
// loopback.
func (theToken) RequireTransportSecurity() bool { return false }

// tokenFile is a file with theToken.
func (b *bench) tokenFile() (string, error) {
	dir, err := b.folder("token")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "token")
	return file, os.WriteFile(file, []byte(tokenText+"\n"), 0o600)
}
