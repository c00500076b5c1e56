// Package field has the forms in which the fields of HTTP messages (RFC 9110 5) are held between reading and sending them.
// It knows no caching rule and no connection.
package field
