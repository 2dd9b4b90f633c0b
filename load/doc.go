// Command load proves that one bad client harms nobody.
//
// It starts this program again and again in other roles: a server (package
// server on a listener of 127.0.0.1), clients that are judged, and clients that
// are bad on purpose. They are processes of their own, so that what is measured
// of one is not the others'. The first process tells them what to do, one thing
// at a time, prints what they say, and holds it against the gates. It ends with
// an error if one of them is crossed.
//
// Linux only. README.md says what is measured and how.
package main
