package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// The provisioner that the default StorageClass of the cluster names.
const provisioner = "pgrail.dev/directory"

// volumes answers claims with directories of the one node, and removes a directory once its volume is released.
type volumes struct {
	client    kubernetes.Interface
	directory string
	node      string
}

func newVolumesCommand() *cobra.Command {
	var kubeconfig, directory, node string
	command := &cobra.Command{
		Use:   "volumes",
		Short: "Answer PersistentVolumeClaims with directories of this node",
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			return (&volumes{client, directory, node}).run(command.Context())
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the apiserver")
	command.Flags().StringVar(&directory, "directory", "", "where the directories of the volumes are created")
	command.Flags().StringVar(&node, "node", "", "the name of this node")
	return command
}

func (v *volumes) run(ctx context.Context) error {
	if ctx == nil {
		ctx = context.Background()
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[any]())
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    queue.Add,
		UpdateFunc: func(_, object any) { queue.Add(object) },
	}
	factory := informers.NewSharedInformerFactory(v.client, 0)
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().PersistentVolumeClaims().Informer(),
		factory.Core().V1().PersistentVolumes().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	for {
		item, stopped := queue.Get()
		if stopped {
			return nil
		}
		if err := v.visit(ctx, item); err != nil {
			klog.ErrorS(err, "Volume")
			queue.AddRateLimited(item)
		} else {
			queue.Forget(item)
		}
		queue.Done(item)
	}
}

func (v *volumes) visit(ctx context.Context, item any) error {
	switch object := item.(type) {
	case *corev1.PersistentVolumeClaim:
		return v.provision(ctx, object)
	case *corev1.PersistentVolume:
		return v.reclaim(ctx, object)
	}
	return fmt.Errorf("unexpected object %T", item)
}

// provision makes the volume that a claim waits for. The volume controller binds the two.
func (v *volumes) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Annotations["volume.kubernetes.io/storage-provisioner"] != provisioner {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	directory := filepath.Join(v.directory, name)
	if err := os.MkdirAll(directory, 0o777); err != nil {
		return err
	}
	// Pods of any user write here, as on a storage driver that knows fsGroup; the process's umask must not matter.
	if err := os.Chmod(directory, 0o777); err != nil {
		return err
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              *claim.Spec.StorageClassName,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: directory}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{v.node}}},
			}}}},
		},
	}
	_, err := v.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// reclaim removes a released volume of this provisioner with everything in it.
func (v *volumes) reclaim(ctx context.Context, volume *corev1.PersistentVolume) error {
	if volume.Annotations["pv.kubernetes.io/provisioned-by"] != provisioner || volume.Status.Phase != corev1.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		return nil
	}
	err := os.RemoveAll(filepath.Join(v.directory, volume.Name))
	deleted := v.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(deleted) {
		deleted = nil
	}
	return errors.Join(err, deleted)
}
