//! Counts the datagrams that the system has dropped because nobody read them in time.

use std::os::unix::fs::MetadataExt;

use tokio::net::UdpSocket;

/// Where the system lists its sockets, with what each has dropped.
const LISTS: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];

/// Where a line of these lists has a socket's inode, and what it has dropped.
const INODE: usize = 9;
const DROPS: usize = 12;

/// What a socket has dropped so far.
pub struct Drops {
    inode: Option<u64>,
    /// As it was told last.
    known: u64,
}

impl Drops {
    pub fn of(socket: &UdpSocket) -> Self {
        Drops {
            inode: inode_of(socket),
            known: 0,
        }
    }

    /// How many datagrams were dropped since the last call; none where the system does not
    /// say.
    pub fn new_ones(&mut self) -> u64 {
        let Some(inode) = self.inode else {
            return 0;
        };
        let mut lists = LISTS
            .iter()
            .filter_map(|list| std::fs::read_to_string(list).ok());
        let Some(now) = lists.find_map(|list| dropped(&list, inode)) else {
            return 0;
        };
        let more = now.saturating_sub(self.known);
        self.known = now;
        more
    }
}

fn inode_of(socket: &UdpSocket) -> Option<u64> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
    std::fs::metadata(link).ok().map(|file| file.ino())
}

/// What a list says of a socket.
fn dropped(list: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    let mut lines = list.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut columns| {
        (columns.nth(INODE)? == inode).then(|| columns.nth(DROPS - INODE - 1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_sockets_is_read() {
        let list = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             \x20 412: 0100007F:2329 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 51234 2 0000000000000000 17\n\
             \x20 413: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 5123 2 0000000000000000 0\n";
        assert_eq!(dropped(list, 51_234), Some(17));
        assert_eq!(dropped(list, 5_123), Some(0));
        assert_eq!(dropped(list, 1), None);
    }
}
