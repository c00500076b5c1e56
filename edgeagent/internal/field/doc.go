// Package field has the forms in which the fields of HTTP messages (RFC 9110 5) are held between
// reading and sending them: lists, which replies are stored as, and lines, which requests are
// received as. It knows no caching rule and no connection.
//
// What always holds: names compare without regard to the case of ASCII letters; fields keep their
// order; nothing copies a string unless it says so.
package field
