// Package longpoll carries events as answers to requests that wait for them.
//
// A poll is a connection that is spent after one answer, so every poll is
// a resume, and an answer that is lost loses nothing.
package longpoll
