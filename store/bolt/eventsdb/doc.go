// Command eventsdb looks after files of package bolt, while no program has them
// open:
//
//	eventsdb check FILE
//	eventsdb export [-salvage] FILE > LINES
//	eventsdb import FILE < LINES
//	eventsdb compact FILE
//
// check reads all of the file, and says what is wrong with it, and of a channel
// that is damaged how many events are whole.
//
// export writes all events as lines of JSON. If something can't be read it stops
// there, and the lines have no end, so that import refuses them. With -salvage it
// leaves out what can't be read, says on standard error what that is, and ends
// well. Where events are missing between others, those before the gap are left
// out, too, unless none come after it.
//
// import makes a new file of such lines, in which positions are the same. If it
// fails there is no file.
//
// compact gives free room in the file back to the disk. It refuses a file that is
// damaged.
//
// It ends with 0, with 1 if something failed or is wrong, and with 2 if it was not
// called so. docs/durable-log.md describes the lines.
package main
