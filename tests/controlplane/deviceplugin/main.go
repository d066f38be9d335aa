// Command deviceplugin advertises the GPUs of the fake NVML library to a real kubelet, as NVIDIA's plug-in does with real
// ones: by UUID, as nvidia.com/gpu, told to the container in NVIDIA_VISIBLE_DEVICES. It ends when it is killed.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource = "nvidia.com/gpu"
	socket   = "tidegate-test.sock"
	// The kubelet must answer a registration within so long.
	registeredWithin = 10 * time.Second
	// How often the file of unhealthy devices is read again.
	lookEvery = 100 * time.Millisecond
)

// plugin serves the kubelet; both fields never change.
type plugin struct {
	api.UnimplementedDevicePluginServer
	devices   []string
	unhealthy string
}

func main() {
	folder := flag.String("folder", api.DevicePluginPath, "the kubelet's folder of device plug-ins")
	devices := flag.String("devices", "", "UUIDs, separated by commas")
	unhealthy := flag.String("unhealthy", "", "a file with the UUIDs that are unhealthy, one a line; it need not exist")
	flag.Parse()
	if *devices == "" || *unhealthy == "" {
		log.Fatal("-devices and -unhealthy must be given")
	}
	if err := serve(*folder, plugin{devices: strings.Split(*devices, ","), unhealthy: *unhealthy}); err != nil {
		log.Fatal(err)
	}
}

// serve listens, tells the kubelet so, and returns when it can serve no longer.
func serve(folder string, p plugin) error {
	listener, err := net.Listen("unix", filepath.Join(folder, socket))
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	if err := register(folder); err != nil {
		return err
	}
	return <-ended
}

func register(folder string) error {
	kubelet, err := grpc.NewClient("unix:"+filepath.Join(folder, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer kubelet.Close()
	ctx, cancel := context.WithTimeout(context.Background(), registeredWithin)
	defer cancel()
	request := &api.RegisterRequest{Version: api.Version, Endpoint: socket, ResourceName: resource}
	_, err = api.NewRegistrationClient(kubelet).Register(ctx, request, grpc.WaitForReady(true))
	return err
}

// ListAndWatch tells the devices at once and whenever their health has changed.
func (p plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var told []string
	for first := true; ; first = false {
		if sick := p.sick(); first || !slices.Equal(sick, told) {
			if err := stream.Send(p.list(sick)); err != nil {
				return err
			}
			told = sick
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// Allocate tells the container which devices it has.
func (p plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		visible := map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")}
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerAllocateResponse{Envs: visible})
	}
	return answer, nil
}

// GetDevicePluginOptions asks for none of the optional calls.
func (p plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p plugin) sick() []string {
	text, err := os.ReadFile(p.unhealthy)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

func (p plugin) list(sick []string) *api.ListAndWatchResponse {
	answer := &api.ListAndWatchResponse{}
	for _, id := range p.devices {
		health := api.Healthy
		if slices.Contains(sick, id) {
			health = api.Unhealthy
		}
		answer.Devices = append(answer.Devices, &api.Device{ID: id, Health: health})
	}
	return answer
}
