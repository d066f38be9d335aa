// Command dradriver publishes the GPUs of the fake NVML library as ResourceSlices and prepares claims for a real kubelet, as NVIDIA's
// driver does with real ones: a container is told its devices in NVIDIA_VISIBLE_DEVICES, by CDI. It ends when it is killed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

const (
	driverName = "gpu.example.com"
	// Of CDI: the vendor and class of its devices, and where containerd looks for them.
	cdiKind   = "example.com/gpu"
	cdiFolder = "/var/run/cdi"
)

// driver prepares claims; the first three fields never change.
type driver struct {
	uuids   []string
	product string
	memory  resource.Quantity

	lock sync.Mutex
	// Claims by the device that each holds: the last line of defence against giving one twice.
	holders map[string]types.UID
}

func main() {
	node := flag.String("node", "", "the node's name")
	devices := flag.String("devices", "", "UUIDs, separated by commas")
	product := flag.String("product", "", "what the GPUs are called")
	memory := flag.String("memory", "80Gi", "of each GPU")
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	flag.Parse()
	if *node == "" || *devices == "" || *product == "" || *kubeconfig == "" {
		log.Fatal("-node, -devices, -product and -kubeconfig must be given")
	}
	d := &driver{
		uuids: strings.Split(*devices, ","), product: *product, memory: resource.MustParse(*memory),
		holders: map[string]types.UID{},
	}
	if err := d.serve(*node, *kubeconfig); err != nil {
		log.Fatal(err)
	}
}

// serve registers with the kubelet, publishes, and never returns but with an error.
func (d *driver) serve(node, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for _, folder := range []string{cdiFolder, filepath.Join(kubeletplugin.KubeletPluginsDir, driverName)} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	ctx := context.Background()
	helper, err := kubeletplugin.Start(ctx, d,
		kubeletplugin.DriverName(driverName), kubeletplugin.NodeName(node), kubeletplugin.KubeClient(client))
	if err != nil {
		return err
	}
	pool := resourceslice.Pool{Slices: []resourceslice.Slice{{Devices: d.published()}}}
	err = helper.PublishResources(ctx, resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{node: pool}})
	if err != nil {
		return err
	}
	select {}
}

func (d *driver) published() []resourceapi.Device {
	var all []resourceapi.Device
	for i, uuid := range d.uuids {
		all = append(all, resourceapi.Device{
			Name: deviceName(i),
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"type":        {StringValue: text("gpu")},
				"uuid":        {StringValue: text(uuid)},
				"productName": {StringValue: text(d.product)},
			},
			Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: d.memory}},
		})
	}
	return all
}

// PrepareResourceClaims writes what a container with a request of each claim is told.
func (d *driver) PrepareResourceClaims(_ context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	prepared := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		devices, err := d.prepare(claim)
		prepared[claim.UID] = kubeletplugin.PrepareResult{Devices: devices, Err: err}
	}
	return prepared, nil
}

func (d *driver) prepare(claim *resourceapi.ResourceClaim) ([]kubeletplugin.Device, error) {
	var devices []kubeletplugin.Device
	visible := map[string][]string{}
	for _, result := range claim.Status.Allocation.Devices.Results {
		if result.Driver != driverName {
			continue
		}
		uuid, err := d.uuid(result.Device)
		if err != nil {
			return nil, err
		}
		if holder, held := d.holders[result.Device]; held && holder != claim.UID {
			return nil, fmt.Errorf("%s is held by the claim %s", result.Device, holder)
		}
		d.holders[result.Device] = claim.UID
		device := kubeletplugin.Device{Requests: []string{result.Request}, PoolName: result.Pool, DeviceName: result.Device}
		// One CDI device tells of all of a request.
		if visible[result.Request] == nil {
			device.CDIDeviceIDs = []string{cdiKind + "=" + cdiName(claim.UID, result.Request)}
		}
		visible[result.Request] = append(visible[result.Request], uuid)
		devices = append(devices, device)
	}
	return devices, tell(claim.UID, visible)
}

// UnprepareResourceClaims forgets them.
func (d *driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	ended := map[types.UID]error{}
	for _, claim := range claims {
		for device, holder := range d.holders {
			if holder == claim.UID {
				delete(d.holders, device)
			}
		}
		err := os.Remove(cdiFile(claim.UID))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		ended[claim.UID] = err
	}
	return ended, nil
}

// WatchHealthStatus says nothing: the tests have no sick device that is claimed by name.
func (d *driver) WatchHealthStatus(context.Context, chan<- kubeletplugin.DeviceHealthReport) error {
	return kubeletplugin.ErrHealthNotSupported
}

// HandleError says what went wrong beside a call; it is tried again.
func (d *driver) HandleError(_ context.Context, err error, message string) {
	log.Printf("%s: %v", message, err)
}

func (d *driver) uuid(device string) (string, error) {
	for i, uuid := range d.uuids {
		if device == deviceName(i) {
			return uuid, nil
		}
	}
	return "", fmt.Errorf("there is no device %s", device)
}

// tell writes the CDI devices of a claim: one a request.
func tell(claim types.UID, visible map[string][]string) error {
	var devices []any
	for request, uuids := range visible {
		edits := map[string]any{"env": []string{"NVIDIA_VISIBLE_DEVICES=" + strings.Join(uuids, ",")}}
		devices = append(devices, map[string]any{"name": cdiName(claim, request), "containerEdits": edits})
	}
	spec, err := json.Marshal(map[string]any{"cdiVersion": "0.6.0", "kind": cdiKind, "devices": devices})
	if err != nil {
		return err
	}
	// containerd may read at any moment, and only files whose names end so.
	draft := cdiFile(claim) + ".draft"
	if err := os.WriteFile(draft, spec, 0o644); err != nil {
		return err
	}
	return os.Rename(draft, cdiFile(claim))
}

func cdiFile(claim types.UID) string {
	return filepath.Join(cdiFolder, fmt.Sprintf("tidegate-test-%s.json", claim))
}

func cdiName(claim types.UID, request string) string {
	return fmt.Sprintf("%s-%s", claim, request)
}

func deviceName(number int) string {
	return fmt.Sprintf("gpu-%d", number)
}

func text(value string) *string {
	return &value
}
