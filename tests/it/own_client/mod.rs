//! Our own client, against a real gateway and all that may happen to it: whatever a program makes of the state and
//! the events that it is handed is what the database says.

mod agent;
mod browser;
mod example;
mod judge;
mod model;
mod package;
mod react;
mod status;
mod tabs;
mod trouble;
