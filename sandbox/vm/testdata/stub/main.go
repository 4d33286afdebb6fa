// Command stub stands in for the agent: it says how it was started, and reboots its machine on SIGUSR1.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, syscall.SIGUSR1)
	fmt.Printf("stub: args %v node %s\n", os.Args[1:], os.Getenv("NODE_NAME"))
	<-ask
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART); err != nil {
		fmt.Printf("stub: %v\n", err)
	}
}
